"""The encoder, and the parts that stand on its features in training."""

from vivi_keras.models.heads import MLP, CosineCritic, MLPCritic, linear_head
from vivi_keras.models.pooling import AttentionPooling, MeanPooling
from vivi_keras.models.predictors import LSTMPredictor, MLPPredictor
from vivi_keras.models.resnet import ResNet50V2

__all__ = [
    "MLP",
    "AttentionPooling",
    "CosineCritic",
    "LSTMPredictor",
    "MLPCritic",
    "MLPPredictor",
    "MeanPooling",
    "ResNet50V2",
    "linear_head",
]
