"""One genome handle, read by 8 threads and 4 forks at once; prints reads, wrong ones, contigs seen, reads at ends."""

import os
import sys
import threading

import numpy as np

from dnasm.genome import Genome

READERS, READS, BATCH = 12, 84_000, 600
CODES = np.zeros(256, dtype=np.uint8)
CODES[[ord(letter) for letter in "ACGT"]] = [7, 8, 9, 10]


def reference(path: str) -> dict[str, np.ndarray]:
    with open(path) as file:
        records = file.read().split(">")[1:]
    lines = [record.split("\n") for record in records]
    return {first.split()[0]: CODES[np.frombuffer("".join(rest).encode(), np.uint8)] for first, *rest in lines}


def read(genome: Genome, truth: dict[str, np.ndarray], seed: int) -> tuple[int, int, set[str], int]:
    """Batches of windows of one contig, and single ranges; a third of them at the contig's ends."""
    random = np.random.default_rng(seed)
    reads = wrong = ends = 0
    seen = set()
    names = list(truth)
    while reads < READS:
        name = names[(reads // BATCH + seed) % len(names)]
        bases, length = truth[name], int(random.integers(1, 200))
        starts = random.integers(0, len(bases) - length + 1, BATCH)
        starts[: BATCH // 6], starts[-BATCH // 6 :] = 0, len(bases) - length
        expected = bases[starts[:, None] + np.arange(length)]
        wrong += int((genome.read(starts + genome.offset(name), length) != expected).any(1).sum())
        for start, row in zip(starts[::25].tolist(), expected[::25], strict=True):
            wrong += bool((genome.tokens(name, start, start + length) != row).any())
        reads += BATCH
        ends += 2 * (BATCH // 6)
        seen.add(name)
    return reads, wrong, seen, ends


def main(path: str) -> None:
    truth = reference(path)
    genome = Genome(path)
    results = [read(genome, truth, 99)]  # used in the parent before it is shared
    threads = [
        threading.Thread(target=lambda seed=seed: results.append(read(genome, truth, seed)))  # type: ignore[misc]
        for seed in range(8)
    ]
    for thread in threads[:4]:
        thread.start()
    children = []
    for seed in range(8, 12):
        child = os.fork()
        if child == 0:
            _, wrong, seen, _ = read(genome, truth, seed)
            os._exit(0 if wrong == 0 and len(seen) == len(truth) else 1)
        children.append(child)
    for thread in threads[4:]:
        thread.start()
    for thread in threads:
        thread.join()
    failed = sum(os.waitpid(child, 0)[1] != 0 for child in children)
    reads = sum(result[0] for result in results) + READS * len(children)
    wrong = sum(result[1] for result in results) + failed
    contigs = min(len(result[2]) for result in results)
    print(reads, wrong, contigs, sum(result[3] for result in results))


if __name__ == "__main__":
    main(sys.argv[1])
