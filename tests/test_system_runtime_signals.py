"""Signals reach a process in which models come and go."""

import subprocess
import sys

CODE = """
import signal
from regnet.inference.classify import Classifier
from regnet.conversion.store import Library
from regnet.pixels.samples import sample_photos

def loaded():
    classifier = Classifier(Library().ir("bundled"))
    classifier.classify(sample_photos()[0])
    return classifier

older, newer = loaded(), loaded()
del older
newest = loaded()
del newer, newest
for _ in range(3):
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_ctrl_c_is_no_crash_after_models_have_come_and_gone() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("interrupted\n" * 3, 0), done.stderr
