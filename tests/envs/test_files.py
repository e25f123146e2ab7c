import pytest

from rlbilinear.envs.files import replacing


def test_writers_at_the_same_time_do_no_harm(tmp_path):
    target = tmp_path / "some.txt"
    with replacing(target) as one, replacing(target) as two:
        assert one != two and {one.suffix, two.suffix} == {".txt"}
        one.write_text("one")
        two.write_text("two")
        assert not target.exists()
    assert target.read_text() == "one", "who ends last"
    assert list(tmp_path.iterdir()) == [target]


def test_when_the_writing_fails_the_file_stays(tmp_path):
    target = tmp_path / "some.txt"
    target.write_text("old")
    with pytest.raises(OSError, match="disk full"), replacing(target) as partial:
        partial.write_text("half")
        raise OSError("disk full")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
