"""Several checkpoints in one option."""

from pathlib import Path

from study.plan.checkpoints import absolute_checkpoints, checkpoints_of


def test_each_checkpoint_may_begin_at_home(tmp_path, monkeypatch):
    # A shell expands `~` at the start of an argument alone.
    monkeypatch.setenv("HOME", str(tmp_path))
    assert checkpoints_of(Path("/a.pth, ~/b.pth")) == [Path("/a.pth"), tmp_path / "b.pth"]
    assert absolute_checkpoints(Path("/a.pth,~/b.pth")) == Path(f"/a.pth,{tmp_path}/b.pth")
