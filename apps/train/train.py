#!/usr/bin/env python3
"""A demo job: logistic regression by stochastic gradient descent, with checkpoints.

Plain Python, standard library only. The examples are made from a seed and all randomness of an
epoch comes from the seed and the number of the epoch. So a run that was stopped and resumed prints
the same losses as one that was not.

Stdout is the result, one line for each epoch; stderr tells the progress. After each epoch the
checkpoint is replaced as a whole, so whoever reads it while the job runs finds a complete one.

Exit codes: 0 done, 1 the checkpoint is unusable or cannot be written, 2 wrong options,
143 stopped by SIGTERM after writing a checkpoint.
"""

import argparse
import json
import math
import os
import random
import signal
import sys
import time

CHECKPOINT_NAME = "checkpoint.json"
CHECKPOINT_BYTES_MAX = 16 * 1024 * 1024
FORMAT = "welkin-train"
VERSION = 1
EXIT_STOPPED = 128 + signal.SIGTERM
FEATURES_MAX = 10_000
EXAMPLES_MAX = 10_000_000
LEARNING_RATE = 0.1
LABEL_NOISE = 0.05
SLEEP_SECONDS_MAX = 0.1


class CheckpointError(Exception):
    """The checkpoint cannot be read, written or used; the text says why."""


class Stop:
    """Whether SIGTERM came. A plain flag: a lock taken in a signal handler could wait for ever."""

    def __init__(self):
        self.is_set = False

    def on_signal(self, _number, _frame):
        """Is called by Python between two steps of the program."""
        self.is_set = True

    def sleep_until(self, deadline):
        """Sleeps, but not for long once SIGTERM came."""
        while not self.is_set and (rest := deadline - time.monotonic()) > 0.0:
            time.sleep(min(rest, SLEEP_SECONDS_MAX))


class Model:
    """The weights and what is known about how they came about."""

    def __init__(self, features):
        self.epoch = 0
        self.weights = [0.0] * features
        self.bias = 0.0
        self.history = []

    def score(self, values):
        """The log-odds that an example is of class 1."""
        return self.bias + sum(weight * value for weight, value in zip(self.weights, values))


def make_examples(seed, n_examples, features):
    """Points around the origin, divided by a plane; some labels are wrong."""
    source = random.Random(f"examples {seed}")
    plane = [source.gauss(0.0, 1.0) for _ in range(features)]
    examples = []
    for _ in range(n_examples):
        values = [source.gauss(0.0, 1.0) for _ in range(features)]
        label = 1 if sum(a * b for a, b in zip(plane, values)) > 0.0 else 0
        if source.random() < LABEL_NOISE:
            label = 1 - label
        examples.append((values, label))
    return examples


def probability(score):
    """The logistic function, safe for scores of any size."""
    if score >= 0.0:
        return 1.0 / (1.0 + math.exp(-score))
    power = math.exp(score)
    return power / (1.0 + power)


def train_epoch(model, examples, seed, stop):
    """Learns from each example once. Returns whether it came to the end.

    The model changes only when the epoch is complete.
    """
    order = list(range(len(examples)))
    random.Random(f"epoch {seed} {model.epoch}").shuffle(order)
    rate = LEARNING_RATE / (1.0 + 0.1 * model.epoch)
    draft = Model(0)
    draft.weights, draft.bias = list(model.weights), model.bias
    for index in order:
        if stop.is_set:
            return False
        values, label = examples[index]
        step = rate * (label - probability(draft.score(values)))
        draft.bias += step
        draft.weights = [w + step * value for w, value in zip(draft.weights, values)]
    model.weights, model.bias = draft.weights, draft.bias
    model.epoch += 1
    return True


def measure(model, examples):
    """The mean loss and the share of right answers."""
    loss, n_right = 0.0, 0
    for values, label in examples:
        score = model.score(values)
        # log(1 + exp(-margin)) without overflow
        margin = score if label == 1 else -score
        loss += max(-margin, 0.0) + math.log1p(math.exp(-abs(margin)))
        n_right += margin > 0.0
    return loss / len(examples), n_right / len(examples)


def save(model, options):
    """Replaces the checkpoint as a whole."""
    data = {
        "format": FORMAT,
        "version": VERSION,
        "seed": options.seed,
        "examples": options.examples,
        "features": options.features,
        "epoch": model.epoch,
        "weights": model.weights,
        "bias": model.bias,
        "history": model.history,
    }
    path = os.path.join(options.checkpoint, CHECKPOINT_NAME)
    draft = path + ".new"
    try:
        os.makedirs(options.checkpoint, exist_ok=True)
        with open(draft, "w", encoding="utf-8") as file:
            json.dump(data, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        raise CheckpointError(f"failed to write the checkpoint {path}: {error}") from error


def load(options):
    """The model of the checkpoint, or None when there is no checkpoint."""
    path = os.path.join(options.checkpoint, CHECKPOINT_NAME)
    try:
        with open(path, "rb") as file:
            raw = file.read(CHECKPOINT_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"failed to read the checkpoint {path}: {error}") from error
    if len(raw) > CHECKPOINT_BYTES_MAX:
        raise CheckpointError(f"the checkpoint {path} has more than {CHECKPOINT_BYTES_MAX} bytes")
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the checkpoint {path} is damaged: {error}") from error
    problem = find_problem(data, options)
    if problem:
        raise CheckpointError(f"the checkpoint {path} {problem}")
    model = Model(options.features)
    model.epoch, model.bias = data["epoch"], data["bias"]
    model.weights, model.history = data["weights"], data["history"]
    return model


def find_problem(data, options):
    """Why the content of a checkpoint cannot be used, or None."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        return "was not written by this program"
    if data.get("version") != VERSION:
        return f"has version {data.get('version')!r}, not {VERSION}"
    for name in ("seed", "examples", "features"):
        wanted = getattr(options, name)
        if data.get(name) != wanted:
            return f"is of a run with --{name} {data.get(name)!r}, not {wanted}"
    epoch, history = data.get("epoch"), data.get("history")
    if type(epoch) is not int or epoch < 0:
        return "is damaged: the epoch is not a count"
    if not is_numbers(history, epoch):
        return "is damaged: the history does not fit the epoch"
    if not is_numbers(data.get("weights"), options.features) or not is_number(data.get("bias")):
        return "is damaged: the weights are not numbers"
    return None


def is_number(value):
    """Whether it is a finite float."""
    return type(value) is float and math.isfinite(value)


def is_numbers(value, length):
    """Whether it is a list of so many finite floats."""
    return isinstance(value, list) and len(value) == length and all(map(is_number, value))


def note(text):
    """Tells the progress; nobody need listen."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        pass


def run(options, stop):
    """Trains until done or told to stop. Returns the exit code."""
    model = load(options)
    if model is None:
        model = Model(options.features)
    else:
        print(f"resumed at epoch {model.epoch}", flush=True)
    note(f"making {options.examples} examples of {options.features} features")
    examples = make_examples(options.seed, options.examples, options.features)
    while model.epoch < options.epochs and not stop.is_set:
        deadline = time.monotonic() + options.seconds_per_epoch_min
        if not train_epoch(model, examples, options.seed, stop):
            break
        loss, accuracy = measure(model, examples)
        model.history.append(loss)
        save(model, options)
        print(f"epoch {model.epoch} loss {loss:.6f} accuracy {accuracy:.4f}", flush=True)
        note(f"{100 * model.epoch // options.epochs} % ({model.epoch} of {options.epochs} epochs)")
        if model.epoch < options.epochs:
            stop.sleep_until(deadline)
    if model.epoch >= options.epochs:
        return 0
    save(model, options)
    note(f"stopped after epoch {model.epoch}; the checkpoint is written")
    return EXIT_STOPPED


def number_within(kind, low, high):
    """A parser of numbers for argparse."""

    def parse(text):
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not within {low} to {high}")
        return value

    parse.__name__ = "number"
    return parse


def parse_options(words):
    """Understands the command line."""
    folder = os.environ.get("WELKIN_CHECKPOINT_DIR") or "/work/ckpt"
    parser = argparse.ArgumentParser(description="Train a logistic regression, with checkpoints.")
    count = number_within(int, 1, 1_000_000)
    parser.add_argument("--epochs", type=count, default=20, help="epochs in all (20)")
    parser.add_argument("--seed", type=int, default=1, help="what the examples are made from (1)")
    parser.add_argument(
        "--examples", type=number_within(int, 1, EXAMPLES_MAX), default=2000, help="(2000)"
    )
    parser.add_argument(
        "--features", type=number_within(int, 1, FEATURES_MAX), default=16, help="(16)"
    )
    parser.add_argument(
        "--seconds-per-epoch-min",
        type=number_within(float, 0.0, 86_400.0),
        default=0.0,
        metavar="SECONDS",
        help="wait so that an epoch takes at least so long (0)",
    )
    parser.add_argument(
        "--checkpoint",
        default=folder,
        metavar="DIR",
        help="where checkpoints are ($WELKIN_CHECKPOINT_DIR, or /work/ckpt)",
    )
    return parser.parse_args(words)


def main():
    """Runs the program."""
    # Before anything slow, so that an early SIGTERM is not missed.
    stop = Stop()
    signal.signal(signal.SIGTERM, stop.on_signal)
    options = parse_options(sys.argv[1:])
    try:
        return run(options, stop)
    except CheckpointError as error:
        note(f"error: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
