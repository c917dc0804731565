"""The example programs and launch.py: a missing, empty or wrong argument ends in one sentence and exit status 2."""

import http.server
import json
import re
import runpy
import sys
import threading

import pytest
from paths import ROOT

import launch

EXAMPLES = ROOT / "examples"


@pytest.fixture
def start(monkeypatch, capfd):
    """Runs the main function of an example; returns its exit status and what it wrote to stderr."""
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def run(name, *arguments):
        main = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
        with pytest.raises(SystemExit) as stop:
            main(list(map(str, arguments)))
        return stop.value.code, capfd.readouterr().err

    yield run
    sys.modules.pop("serving_client", None)


@pytest.fixture
def places(tmp_path):
    """Folders of an example's arguments: `empty`, `text` with a file that is not an image, `damaged`, a SavedModel."""
    for name in ("empty", "text", "damaged"):
        (tmp_path / name).mkdir()
    (tmp_path / "text" / "notes.txt").write_text("no image")
    (tmp_path / "damaged" / "saved_model.pb").write_bytes(b"no protocol buffer")
    return tmp_path


@pytest.fixture
def server():
    """The URL of a server that answers every request with {"outputs": {}}."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"outputs": {}}).encode())

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("localhost", 0), Handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://localhost:{serving.server_port}/v1/models/encoder"
        serving.shutdown()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "arguments are required: encoder, images"),
        (["damaged"], "arguments are required: images"),
        (["damaged", "missing"], "an image file, or a folder of them. Received: .*missing'"),
        (["damaged", "empty"], "an image file, or a folder of them. Received: .*empty'"),
        (["missing", "text"], "a folder with a saved_model.pb. Received: .*missing'"),
        (["text", "text"], "a folder with a saved_model.pb. Received: .*text'"),
        (["damaged", "text"], "No exported encoder that can be loaded: .*damaged'"),
    ],
)
def test_the_feature_extractor_says_what_is_wrong_in_a_sentence(start, places, arguments, sentence):
    check(start("feature_extractor", *(places / name for name in arguments)), sentence)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "arguments are required: url, paths"),
        (["SERVER", "missing"], "an image file, or a folder of them. Received: .*missing'"),
        (["SERVER", "empty"], "an image file, or a folder of them. Received: .*empty'"),
        (["SERVER", "text"], "must have the outputs embedding and valid"),
        (["SERVER", "text", "--batch_size=0"], "--batch_size: must be a whole number of at least 1. Received: '0'"),
        (["localhost:8501", "text"], "from 'localhost:8501': .*unknown url type"),
        (["http://localhost:port", "text"], "nonnumeric port"),
        (["http://no host.invalid", "text"], "No embeddings from"),
    ],
)
def test_the_client_says_what_is_wrong_in_a_sentence(start, places, server, arguments, sentence):
    known = {"SERVER": server, **{name: places / name for name in ("missing", "empty", "text")}}
    check(start("serving_client", *(known.get(name, name) for name in arguments)), sentence)


def test_the_client_says_that_no_server_answers(start, places, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    check(start("serving_client", "http://localhost:1/v1/models/encoder", places / "text"), "Connection refused")


@pytest.mark.parametrize("arguments", [[], ["0"], ["two"], ["101"], ["--mode=train"]])
def test_launch_needs_a_number_of_workers(arguments, capsys):
    code = launch.main(arguments)
    check((code, capsys.readouterr().err), "a number of workers, from 1 to 100. Received: " + "".join(arguments[:1]))


def check(answer, sentence):
    code, said = answer
    assert code == 2 and said.count("\n") == 1
    assert re.search(sentence, said), said
