"""Tests of train.py: python3 -m unittest discover -s apps/train"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

PROGRAM = pathlib.Path(__file__).with_name("train.py")
SMALL = ["--examples", "200", "--features", "5"]


class TrainTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def command(self, name, *words):
        folder = str(self.folder / name)
        return [sys.executable, str(PROGRAM), "--checkpoint", folder, *SMALL, *words]

    def run_train(self, name, *words, env=None):
        command = self.command(name, *words)
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)

    def lines(self, name, *words):
        result = self.run_train(name, *words)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout.splitlines()

    def checkpoint(self, name):
        return self.folder / name / "checkpoint.json"

    def test_losses_are_deterministic_and_fall(self):
        first = self.lines("a", "--epochs", "4")
        self.assertEqual(first, self.lines("b", "--epochs", "4"))
        self.assertNotEqual(first, self.lines("c", "--epochs", "4", "--seed", "2"))
        losses = [float(line.split()[3]) for line in first]
        self.assertEqual(len(losses), 4)
        self.assertLess(losses[-1], losses[0])
        self.assertGreater(float(first[-1].split()[5]), 0.85)

    def test_a_resumed_run_equals_an_uninterrupted_one(self):
        whole = self.lines("whole", "--epochs", "5")
        parts = self.lines("parts", "--epochs", "2")
        rest = self.lines("parts", "--epochs", "5")
        self.assertEqual(rest[0], "resumed at epoch 2")
        self.assertEqual(parts + rest[1:], whole)
        self.assertEqual(
            self.checkpoint("parts").read_bytes(), self.checkpoint("whole").read_bytes()
        )
        self.assertEqual(self.lines("whole", "--epochs", "5"), ["resumed at epoch 5"])

    def test_sigterm_writes_a_checkpoint_and_exits_143(self):
        command = self.command("a", "--epochs", "9", "--seconds-per-epoch-min", "60")
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            self.addCleanup(process.kill)
            first = process.stdout.readline().rstrip()
            # The checkpoint may be fetched while the job runs.
            self.assertEqual(json.loads(self.checkpoint("a").read_text())["epoch"], 1)
            process.send_signal(signal.SIGTERM)
            rest, _ = process.communicate(timeout=30)
        self.assertEqual((process.returncode, rest), (143, ""))
        resumed = self.lines("a", "--epochs", "3")
        self.assertEqual(resumed[0], "resumed at epoch 1")
        self.assertEqual([first] + resumed[1:], self.lines("b", "--epochs", "3"))

    def test_sigterm_within_an_epoch_keeps_the_last_whole_one(self):
        command = self.command("a", "--examples", "200000", "--epochs", "500")
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            self.addCleanup(process.kill)
            # Its first line comes when the signal is already handled.
            process.stderr.readline()
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
        self.assertEqual(process.returncode, 143)
        self.assertEqual(json.loads(self.checkpoint("a").read_text())["epoch"], 0)

    def test_a_damaged_checkpoint_is_an_error(self):
        self.lines("a", "--epochs", "2")
        path = self.checkpoint("a")
        good = path.read_text()
        changes = [
            (good[:50], "is damaged"),
            ("", "is damaged"),
            ("[" * 100_000, "is damaged"),
            ("[1, 2]", "was not written by this program"),
            (good.replace('"version": 1', '"version": 7'), "has version 7"),
            (good.replace('"epoch": 2', '"epoch": 3'), "the history does not fit"),
            (good.replace('"epoch": 2', '"epoch": -1'), "the epoch is not a count"),
            (good.replace('"weights": [', '"weights": [NaN, '), "the weights are not numbers"),
            (good.replace('"seed": 1', '"seed": 5'), "is of a run with --seed 5, not 1"),
        ]
        for text, problem in changes:
            with self.subTest(problem):
                path.write_text(text)
                result = self.run_train("a", "--epochs", "3")
                self.assertEqual((result.returncode, result.stdout), (1, ""))
                self.assertIn("error: the checkpoint", result.stderr)
                self.assertIn(problem, result.stderr)
                self.assertNotIn("Traceback", result.stderr)
                self.assertEqual(path.read_text(), text)
        path.write_bytes(b"\xff\xfe\x00")
        self.assertIn("is damaged", self.run_train("a").stderr)

    def test_a_folder_that_cannot_be_made_is_an_error(self):
        (self.folder / "file").write_text("")
        result = self.run_train("file/below", "--epochs", "1")
        self.assertEqual(result.returncode, 1)
        self.assertIn("error: failed to", result.stderr)

    def test_the_folder_comes_from_the_environment(self):
        env = {**os.environ, "WELKIN_CHECKPOINT_DIR": str(self.folder / "env")}
        command = [sys.executable, str(PROGRAM), *SMALL, "--epochs", "1"]
        subprocess.run(command, check=True, capture_output=True, timeout=60, env=env)
        self.assertTrue(self.checkpoint("env").exists())
        names = [path.name for path in (self.folder / "env").iterdir()]
        self.assertEqual(names, ["checkpoint.json"])

    def test_wrong_options_exit_with_2(self):
        for words in (["--epochs", "0"], ["--features", "x"], ["--seconds-per-epoch-min", "nan"]):
            result = self.run_train("a", *words)
            self.assertEqual(result.returncode, 2, words)
            self.assertIn("error: argument", result.stderr)


if __name__ == "__main__":
    unittest.main()
