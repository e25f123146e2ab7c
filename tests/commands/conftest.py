"""Shared by the tests of several commands."""

import pytest


@pytest.fixture
def ends(capsys):
    """Call what must end with an exit code, and return all that it says, on one line."""

    def call(code, command, *arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            command(*arguments)
        said = capsys.readouterr()
        assert ended.value.code == code, said.err
        assert "Traceback" not in said.err
        return " ".join((said.out + said.err).replace("│", " ").split())

    return call
