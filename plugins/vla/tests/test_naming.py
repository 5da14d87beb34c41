"""pytest plugins/vla/tests/test_naming.py: names of environments, ours and others'."""

from types import SimpleNamespace

import gymnasium
import pytest
from unidiff_vla.environments import find_environment, make_environment
from unidiff_vla.loading import environment_for

from unidiff.data.sources.tabletop_scene import IMAGE_SIZE

from .toy_gym import Corridor


@pytest.mark.parametrize(
    ("name", "identifier"),
    [
        ("tabletop-push", "unidiff_vla/Tabletop-push-v0"),
        ("pusht", "unidiff_vla/PushT-v0"),
        ("pusht-pose", "unidiff_vla/PushT-pose-v0"),
        ("metaworld-drawer-open", "unidiff_vla/MetaWorld-drawer-open-v0"),
        ("package:Name-v0", "package:Name-v0"),
    ],
)
def test_short_names_and_ids_are_found(name, identifier):
    chosen = find_environment(name)
    assert chosen.id == identifier
    assert chosen.is_ours == identifier.startswith("unidiff_vla/")
    assert chosen.is_tabletop == name.startswith("tabletop")
    assert chosen.is_metaworld == name.startswith("metaworld")


@pytest.mark.parametrize("name", ["metaworld-juggle", "tabletop-pull", "juggling"])
def test_another_name_is_refused_with_those_there_are(name):
    with pytest.raises(ValueError, match=r"juggl|tabletop-reach"):
        find_environment(name)


def test_what_gymnasium_does_not_know_is_said():
    with pytest.raises(ValueError, match="cannot make 'toy/Nothing-v0'"):
        make_environment(find_environment("toy/Nothing-v0"), "test")
    with pytest.raises(ImportError):
        make_environment(find_environment("no_such_package:Name-v0"), "test")


def test_one_of_ours_takes_the_split_and_is_bare():
    env = make_environment(find_environment("tabletop-reach"), "test", ("top",))
    assert env.split == "test"
    assert callable(env.execute)


def test_one_of_ours_has_the_size_that_was_asked_for():
    pusht = find_environment("pusht")
    pytest.importorskip("gym_pusht", reason="gym-pusht is not installed: unidiff-vla[pusht]")
    assert make_environment(pusht, "test", image_size=96).reset(seed=0)[0]["image"].shape[0] == 96
    assert make_environment(pusht, "test").reset(seed=0)[0]["image"].shape[0] == 64


def test_the_table_has_one_size_of_pictures():
    chosen = find_environment("tabletop-reach")
    assert make_environment(chosen, "test", image_size=IMAGE_SIZE).image_size == IMAGE_SIZE
    with pytest.raises(ValueError, match=r"the only size of the table's pictures; got .*=64"):
        make_environment(chosen, "test", image_size=64)


@pytest.mark.parametrize(("size", "shown"), [((32, 32), 32), ((96, 64), 32)])
def test_an_environment_shows_what_a_policy_sees(size, shown):
    policy = SimpleNamespace(
        encoder=SimpleNamespace(image_size=size), settings=SimpleNamespace(cameras=("top",))
    )
    env = environment_for(policy, find_environment("tabletop-reach"), "test")
    assert (env.split, env.cameras, env.image_size) == ("test", ("top",), shown)
    policy.encoder.image_size = (96, 96)
    with pytest.raises(ValueError, match="image_size=96"):
        environment_for(policy, find_environment("tabletop-reach"), "test")


def test_one_of_others_is_tried_out(monkeypatch):
    gymnasium.register("toy/Corridor-v0", entry_point=Corridor)
    env = make_environment(find_environment("toy/Corridor-v0"), "test", ("side",))
    assert env.reset(seed=1)[0]["instruction"] == "walk to the end"
    monkeypatch.setattr(Corridor, "observe", lambda self: {"state": 1})
    with pytest.raises(ValueError, match="cannot be driven by words"):
        make_environment(find_environment("toy/Corridor-v0"), "test")
