"""Prepares an archive of videos as a data set of records.

TensorFlow is imported only where records are written: worker processes
import this package and should start fast.
"""

from vivi_keras.prepare.prepare import prepare

__all__ = ["prepare"]
