"""Records a walk through a map of the game Freedoom as first-person video.

The game runs without window or sound in the package vizdoom, which includes
Freedoom's maps (BSD licence). The game reports which objects each picture shows
and how far away the wall ahead is, so no one has to label, and cuts are known.
"""

import json
import math
import os
import pathlib

import av
import numpy as np

from vivi_keras.demo import film

MAPS = tuple(
    [f"freedoom2-map{number:02}" for number in range(1, 33)]
    + [f"freedoom1-e{e}m{m}" for e in (1, 2, 3) for m in range(1, 10)]
)
HEIGHT, WIDTH = 120, 160
TICS = 3  # steps of the game for each frame of video
TICS_PER_SECOND = 35
FRAMES_PER_SECOND = TICS_PER_SECOND / TICS
SHOT_SECONDS = (5.0, 15.0)  # shortest and longest
# The walker runs up to 90 units between two frames; farther means a teleporter.
JUMP_UNITS = 200
_MIDDLE_ROWS = slice(50, 70)  # around the horizon, at eye level
_NEAR, _TOUCHING = 12, 6  # depths at which the walker turns, and stops
_TURN_DEGREES = 8


def walk_seconds(num_shots):
    """The length in seconds of a walk of that many shots, on average."""
    return num_shots * sum(SHOT_SECONDS) / 2


def record_walk(directory, name, number, num_shots, seed=0):
    """Records one walk, unless its files exist already.

    Each shot starts where an object stands that is chosen at random. From there
    a simple walker goes ahead; near an obstacle, it turns to the freer side. On
    the same machine, the same arguments give the same video.

    Files: NAME-NUMBER.mp4, and NAME-NUMBER.jsonl with a line for each frame:
    {"seconds", "shot" (counts from 0), "ahead" (depth in the middle of the
    picture, 0 near to 255 far), "things" (visible objects, each as name,
    category, left, top, width, height in pixels)}. A teleporter on the way
    starts a new shot, too.

    Args:
        directory: where to write; made if absent.
        name: one of MAPS.
        number: int >= 0; walks with other numbers differ.
        num_shots: int >= 1.
        seed: int >= 0.
    Returns: path of the video.
    Raises: ImportError: vizdoom is missing. ValueError: the map is unknown.
    """
    if name not in MAPS:
        raise ValueError(f"name must be a map of MAPS. Got: {name!r}")
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    video = directory / f"{name}-{number}.mp4"
    if video.exists():
        return video
    random = np.random.default_rng([seed, MAPS.index(name), number])
    part, lines = video.with_suffix(".part.mp4"), []
    game = _open_game(name, int(random.integers(1 << 30)))
    try:
        with av.open(str(part), "w", format="mp4") as container:
            stream = film.open_stream(
                container, TICS_PER_SECOND, HEIGHT, WIDTH, quality=18
            )
            for row, (state, shot) in enumerate(_play(game, random, num_shots)):
                picture = av.VideoFrame.from_ndarray(
                    np.ascontiguousarray(state.screen_buffer), format="rgb24"
                )
                picture.pts = row * TICS
                container.mux(stream.encode(picture))
                lines.append(json.dumps(_describe(state, row, shot)))
            container.mux(stream.encode())
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        game.close()
    video.with_suffix(".jsonl").write_text("\n".join(lines) + "\n")
    os.replace(part, video)
    return video


def check_installed():
    """Raises ImportError, with what to install, if vizdoom is missing."""
    _import_vizdoom()


def read_walk(video):
    """The dicts of a walk's frames, see `record_walk`."""
    lines = pathlib.Path(video).with_suffix(".jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def _import_vizdoom():
    try:
        import vizdoom
    except ImportError as error:
        raise ImportError(
            "Recording walks needs vizdoom: pip install 'vivi-keras[domain]'."
            f" Got: {error}"
        ) from error
    return vizdoom


def _open_game(name, seed):
    vizdoom = _import_vizdoom()
    wad, _, place = name.partition("-")
    game = vizdoom.DoomGame()
    folder = pathlib.Path(vizdoom.__file__).parent
    game.set_doom_game_path(str(folder / f"{wad}.wad"))
    game.set_doom_map(place.upper())
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_160X120)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_depth_buffer_enabled(True)
    game.set_labels_buffer_enabled(True)
    game.set_objects_info_enabled(True)
    game.set_render_hud(False)
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_available_buttons(
        [
            vizdoom.Button.MOVE_FORWARD,
            vizdoom.Button.TURN_LEFT_RIGHT_DELTA,
            vizdoom.Button.ATTACK,
            vizdoom.Button.USE,
        ]
    )
    game.set_available_game_variables(
        [vizdoom.GameVariable.POSITION_X, vizdoom.GameVariable.POSITION_Y]
    )
    game.set_episode_timeout(0)
    game.set_seed(seed)
    game.add_game_args("+sv_cheats 1")
    game.init()
    _begin(game)
    return game


def _begin(game):
    game.new_episode()
    game.send_game_command("god")


def _play(game, random, num_shots):
    """Yields (state of the game, number of the shot) for each frame."""
    spots = sorted(
        (thing.position_x, thing.position_y)
        for thing in game.get_state().objects
        if not thing.name.startswith("Teleport")
    )
    before, shot = None, -1
    for _ in range(num_shots):
        x, y = spots[random.integers(len(spots))]
        game.send_game_command(f"warp {x} {y}")
        # Some tics let the walker land before the first picture.
        game.make_action([0, random.uniform(0, 360), 0, 0], 4)
        turn = 0
        for _ in range(int(random.uniform(*SHOT_SECONDS) * FRAMES_PER_SECOND)):
            if game.is_episode_finished():
                _begin(game)
                break
            state = game.get_state()
            place = state.game_variables
            if before is None or math.dist(before, place) > JUMP_UNITS:
                shot += 1
            before = place
            yield state, shot
            action, turn = _next_action(state, random, turn)
            game.make_action(action, TICS)


def _next_action(state, random, turn):
    """The buttons to press, and how far the walker turns from now on."""
    depth = state.depth_buffer[_MIDDLE_ROWS]
    left, ahead, right = (
        np.median(part) for part in np.array_split(depth, 3, axis=1)
    )
    if ahead < _NEAR:
        turn = turn or (_TURN_DEGREES if right > left else -_TURN_DEGREES)
    elif random.random() < 0.9:
        turn = 0
    faced = any(
        thing.object_category == "Monster"
        and thing.x < WIDTH / 2 < thing.x + thing.width
        for thing in state.labels
    )
    attack = faced and random.random() < 0.3
    use = random.random() < 0.1  # opens doors
    return [ahead > _TOUCHING, turn + random.normal(0, 2), attack, use], turn


def _describe(state, row, shot):
    things = [
        [t.object_name, t.object_category, t.x, t.y, t.width, t.height]
        for t in state.labels
        if t.object_category != "Self" and t.width * t.height > 12
    ]
    middle = state.depth_buffer[_MIDDLE_ROWS, WIDTH // 2 - 10 : WIDTH // 2 + 10]
    return {
        "seconds": round(row / FRAMES_PER_SECOND, 3),
        "shot": shot,
        "ahead": int(np.median(middle)),
        "things": things,
    }
