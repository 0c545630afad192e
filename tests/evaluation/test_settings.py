"""Settings of an evaluation: defaults, ranges, and what has no effect."""

import pytest

from vivi_keras.evaluation import settings


def test_defaults_are_the_suites():
    found = settings.for_suite("offline")
    assert found.tasks == ("digits", "fashion_mnist")
    assert found.protocols == ("knn", "linear")
    assert (found.image_size, found.max_test, found.resize) == (64, 5000, None)
    found = settings.for_suite("vtab", steps=["3", "4"], momentum=0.5)
    assert (found.tasks, found.protocols) == (("all",), ("finetune",))
    assert (found.image_size, found.max_test) == (224, None)
    assert found.resize == "half_pixel"
    assert found.sweep == {"steps": (3, 4), "momentum": 0.5}
    assert settings.for_suite("video", data_dir="d").image_size == 64
    folders = {"data_dir": "d", "train_dir": "t"}
    assert settings.for_suite("imagenet_c", **folders).image_size == 224


@pytest.mark.parametrize(
    ("suite", "given", "said"),
    [
        ("vtab", {"seeds": 3}, "suite vtab and protocols finetune. Got: seeds"),
        ("vtab", {"demo_films": "f"}, "demo_films has no effect with suite"),
        ("offline", {"steps": [9]}, "steps has no effect with protocols knn,"),
        ("offline", {"max_corrupted": 9}, "max_corrupted has no effect with"),
        ("offline", {"resize": "legacy"}, "resize has no effect with suite"),
        ("offline", {"train_dir": "t"}, "train_dir has no effect with suite"),
        (
            "offline",
            {"protocols": ["finetune"], "seeds": 2},
            "seeds has no effect with suite offline and protocols finetune",
        ),
        (
            "offline",
            {"budget_minutes": 9, "protocols": ["knn"]},
            "protocols has no effect with budget_minutes, which chooses it",
        ),
        ("imagenet_c", {"maps": ["pca"]}, "maps has no effect with suite"),
        (
            "ytbb_robust",
            {"tasks": ["digits"]},
            "tasks has no effect with suite",
        ),
        ("video", {"train_dir": "t"}, "train_dir has no effect with suite"),
        ("video", {}, "Suite video needs data_dir"),
        ("vid_robust", {"data_dir": "d"}, "Suite vid_robust needs train_dir"),
        ("video", {"data_dir": "d", "tasks": ["a", "b"]}, "must be one task"),
        ("vtb", {}, "suite"),
        ("offline", {"protocols": ["knn", "knn"]}, "each once. Got: knn, knn"),
        ("offline", {"protocols": ["nn"]}, "protocols must be of knn, linear,"),
        ("offline", {"steps": ["x"]}, "steps must be numbers"),
        ("offline", {"image_size": 4}, "image_size"),
        ("vtab", {"resize": "bicubic"}, "resize"),
        ("vtab", {"momentum": 2.0}, "momentum"),
    ],
)
def test_what_is_wrong_or_without_effect_is_named(suite, given, said):
    with pytest.raises(ValueError) as caught:
        settings.for_suite(suite, **given)
    assert said in str(caught.value)


def test_every_setting_has_an_effect_where_it_is_used():
    settings.for_suite("offline", protocols=["few_shot"], seeds=3, max_test=9)
    settings.for_suite("vtab", protocols=["few_shot"], seeds=3)
    settings.for_suite("offline", protocols=["corruptions"], max_corrupted=9)
    settings.for_suite("offline", protocols=["finetune"], steps=[9], runs=2)
    settings.for_suite("offline", budget_minutes=9.0, max_test=9, seeds=2)
    settings.for_suite("video", data_dir="d", tasks=["digits"])
