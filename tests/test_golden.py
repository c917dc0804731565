"""The reference's numbers: small, explained, and all of them in use."""

from paths import TESTS

MAX_BYTES = 4_000_000


def test_every_file_is_read_and_explained(golden_dir):
    files = [path for path in golden_dir.iterdir() if path.name != "README.md"]
    readme = (golden_dir / "README.md").read_text(encoding="utf-8")
    tests = "".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    assert files
    for path in files:
        assert f"`{path.name}`" in readme, path.name
        assert f'"{path.name}"' in tests, path.name
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES
