"""A sentence encoder as rating model for unseen films, taken all the way down to a tiny student.

Data: ml-latest-small, films with five ratings or more. For each seed 20 % of them are test films
and 10 % validation films; nobody's rating of these is seen in training. Texts are title and genres;
rows that end in "with tags" read people's tags as well, which for an unseen film is a leak. Each
user ranks all test films: NDCG@10, HR@10 and recall@10 are means over users with at least one.
Settings (five frozen blocks, four epochs, l2) were chosen on the validation films of draws 0 to 2,
those of the crossed student on validation and test films of draws 0 to 9. So the stored rows are of
ten other draws, 10 to 19. All draws are from the same 3,650 films.

Part ``quality`` computes these (about half an hour on two cores), part ``baselines`` only those of
rivals without a language model (a minute), part ``latency`` times one
text from string to item vector, one thread, all runtimes in turns (about three minutes; wants a
quiet machine). ``--students-only`` leaves out what needs neither fine-tuned encoder nor student:
baselines, dropped blocks, pruned neurons; ``--without-runtimes`` leaves out the int8 files. Stored
rows of what is left out stay. Results go to
``results/large_model.csv`` and ``results/large_model_latency.csv``.

Run: ``python benchmarks/large_model.py --part quality`` and ``--part latency``.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pandas as pd
from machine import machine_line
from threadpoolctl import threadpool_limits

from recsys_lib.data import ColdItemSplit, load_dataset, split_cold_items
from recsys_lib.data.movielens import item_genres, texts_without_tags
from recsys_lib.evaluation import evaluate_cold_items
from recsys_lib.serving import compare_latency
from recsys_lib.text import TextEncoder, load_text_encoder
from recsys_lib.text.compress import (
    ExportedEncoder,
    export_text_encoder,
    keep_blocks,
    prune_text_neurons,
)
from recsys_lib.text.rating import fit_text_rating, ridge, tfidf_vectors
from recsys_lib.text.students import HashedText, TextFacts, fit_hashed_text
from recsys_lib.text.training import (
    CachedTokens,
    TextTraining,
    cache_tokens,
    encode_cached,
    fit_upper_blocks,
    replace_upper_blocks,
    upper_blocks,
)

RESULTS = Path(__file__).parent / "results"
DIM, L2, FROZEN, MAX_TOKENS = 32, 10.0, 5, 48
TRAINING = TextTraining(epochs=4)
RECOVERY = TextTraining(epochs=3, l2=1.0)


def read_film(text: str) -> TextFacts:
    """Take "Heat (1995) Action Crime" apart: title, facts, year."""
    found = re.search(r"\((\d{4})[^)]*\)", text)
    if not found:
        return TextFacts(text)
    year, words = found[1], text[found.end() :].split()
    facts = {word: word for word in words} | {year: year[:3]}  # the decade
    return TextFacts(text[: found.start()], facts, int(year))


STUDENT = HashedText(2**14, l2=0.03)
CROSSED = HashedText(
    2**14, l2=1.0, bits=4, read=read_film, centres=range(1900, 2036, 4), word_weight=3.0,
    embedding_dim=64,
)  # fmt: skip
UNTAUGHT = replace(CROSSED, l2=3.0)  # better for ratings alone
SHARE = 0.65  # of the teacher's scores in the targets of the crossed student; ratings are the rest
NUM_OTHER = 4000  # unrated texts that the teacher labels too: of films with fewer than five ratings
QUIET = {"date": datetime.date.today().isoformat(), "machine": machine_line()}


class Films:
    """What does not depend on the seed: texts, their tokens after some blocks."""

    def __init__(self, fallback: str | None) -> None:
        self.data = load_dataset("ml-latest-small", fallback=fallback)
        loaded = load_text_encoder(progress=False)
        self.tokenizer = loaded.tokenizer
        self.encoder = TextEncoder(loaded.model, self.tokenizer, MAX_TOKENS)
        counts = np.bincount(self.data.item_ids, minlength=self.data.num_items)
        self.items = np.flatnonzero(counts >= 5)
        short, full = texts_without_tags(self.data), self.data.item_texts
        self.short = [short[item] for item in self.items]
        self.full = [full[item] for item in self.items]
        self.other = [short[item] for item in np.flatnonzero(counts < 5)][:NUM_OTHER]

    def rows(self, part: Any) -> np.ndarray:
        """Rows of a part's items among those kept."""
        return np.searchsorted(self.data.item_vocabulary[self.items], part.item_vocabulary)


def quality(arguments: argparse.Namespace) -> None:
    films = Films(arguments.fallback)
    encoder = films.encoder
    cached = {
        "6 blocks": cache_tokens(encoder, films.short, FROZEN),
        "others": cache_tokens(encoder, films.other, FROZEN),
    }
    bases: dict[str, tuple[Any, int]] = {}
    tagged = np.empty(0)
    if not arguments.students_only:
        bases = {
            "half the neurons": (prune_text_neurons(encoder.model, 0.5), FROZEN),
            "3 blocks": (keep_blocks(encoder.model, 3), 2),
            "1 block": (keep_blocks(encoder.model, 1), 0),
        }
        for name, (base, blocks) in bases.items():
            part = TextEncoder(base, films.tokenizer, MAX_TOKENS)
            cached[name] = cache_tokens(part, films.short, blocks)
        tagged = encoder.encode(films.full)
    frozen = encode_cached(upper_blocks(encoder.model, FROZEN), cached["6 blocks"])
    print("cached", flush=True)
    rows: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        rows += one_seed(films, frozen, tagged, cached, bases, seed, arguments.without_runtimes)
        if not films.data.is_synthetic:
            store(RESULTS / "large_model.csv", pd.DataFrame([row | QUIET for row in rows]))
    print(pd.DataFrame(rows).groupby("model")["test_ndcg"].agg(["mean", "std", "count"]).round(4))


def store(path: Path, rows: pd.DataFrame) -> None:
    """Put rows in a file; those of the same model and seed are replaced, others stay."""
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        rows = pd.concat([pd.read_csv(path), rows])
    rows = rows.drop_duplicates(["model", "seed"], keep="last")
    rows.sort_values(["seed"], kind="stable").to_csv(path, index=False)


def noting(rows: list[dict[str, Any]], split: ColdItemSplit, seed: int) -> Callable[..., None]:
    """Return what judges a function of ("validation" or "test") and appends a row.

    Ties, as of films with the same genres, are broken by chance.
    """
    chance = np.random.default_rng(seed)

    def note(name: str, score: Callable[[str], np.ndarray]) -> None:
        row: dict[str, Any] = {"model": name, "seed": seed}
        for part, data in (("validation", split.validation), ("test", split.test)):
            scores = score(part)
            result = evaluate_cold_items(scores + 1e-6 * chance.normal(size=scores.shape), data)
            row |= {f"{part}_ndcg": round(result.ndcg, 5)}
            row |= {f"{part}_hit_rate": round(result.hit_rate, 5)}
            row |= {f"{part}_recall": round(result.recall, 5)}
        rows.append(row)
        print(row, flush=True)

    return note


def baselines_only(arguments: argparse.Namespace) -> None:
    """Compute the rows of the baselines anew; all others stay."""
    films, rows = Films(arguments.fallback), []
    for seed in arguments.seeds:
        split = split_cold_items(films.data, seed=seed)
        baselines(films, split, noting(rows, split, seed))
    if not films.data.is_synthetic:
        store(RESULTS / "large_model.csv", pd.DataFrame([row | QUIET for row in rows]))


def one_seed(
    films: Films,
    frozen: np.ndarray,
    tagged: np.ndarray,
    cached: dict[str, CachedTokens],
    bases: dict[str, tuple[Any, int]],
    seed: int,
    without_runtimes: bool,
) -> list[dict[str, Any]]:
    """All rows of one seed."""
    encoder = films.encoder
    rows: list[dict[str, Any]] = []
    keras.utils.set_random_seed(seed)
    split = split_cold_items(films.data, seed=seed)
    train, validation, test = (films.rows(p) for p in (split.train, split.validation, split.test))
    everything = np.concatenate([train, validation, test])

    note = noting(rows, split, seed)
    where = {"validation": validation, "test": test}
    if bases:
        untuned(films, frozen, tagged, split, note)
    ratings = split.train.to_csr().T.toarray()
    tokens = cached["6 blocks"]
    tuned, losses = fit_upper_blocks(
        upper_blocks(encoder.model, FROZEN), tokens.take(train), ratings, TRAINING
    )
    print(f"losses {losses}", flush=True)
    vectors = encode_cached(tuned, tokens)
    teacher = fit_text_rating(vectors[train], split.train, embedding_dim=DIM, l2=L2)
    wanted, users = teacher.item_vectors(vectors), teacher.user_vectors
    note("fine-tuned", lambda p: users @ wanted[where[p]].T)

    whole = replace_upper_blocks(encoder.model, tuned)
    parts = {"fine-tuned": (whole, lambda v: teacher.item_vectors(v))}
    if bases:
        cut = prune_text_neurons(whole, 0.5)
        pruned = encode_cached(upper_blocks(cut, FROZEN), cached["half the neurons"])
        note("half the neurons", lambda p: teacher.score_items(pruned[where[p]]))
        bases = bases | {"half the neurons": (cut, FROZEN)}
    for name, (base, blocks) in bases.items():
        small, _ = fit_upper_blocks(
            upper_blocks(base, blocks), cached[name].take(train), wanted[train], RECOVERY
        )
        found = encode_cached(small, cached[name])
        kernel, bias = ridge(found[train], wanted[train], RECOVERY.l2)
        note(
            f"{name}, recovered",
            lambda p, f=found, k=kernel, b=bias: users @ (f[where[p]] @ k + b).T,
        )
        if name == "3 blocks":
            parts[name] = (replace_upper_blocks(base, small), lambda v, k=kernel, b=bias: v @ k + b)
    with tempfile.TemporaryDirectory() as folder:
        for name, (model, project) in parts.items():
            for runtime in () if without_runtimes else ("tflite", "onnx"):
                if runtime == "onnx" and name != "fine-tuned":
                    continue
                path = Path(folder, f"{name}.{runtime}".replace(" ", "_"))
                export_text_encoder(model, path, "int8")
                run = ExportedEncoder(path)
                judged = np.concatenate([validation, test])
                found = np.empty((len(films.short), DIM), np.float32)
                for row in judged:
                    found[row] = project(run(*encoder.tokenize([films.short[row]])))[0]
                label = {"tflite": "LiteRT", "onnx": "ONNX Runtime"}[runtime]
                note(f"{name}, int8 {label}", lambda p, f=found: users @ f[where[p]].T)
    texts = np.array(films.short, object)
    known = {"training films' texts": train, "all films' texts": everything}
    for name, chosen in known.items():
        for bits in (8, 4):
            student = fit_hashed_text(
                list(texts[chosen]), wanted[chosen],
                HashedText(STUDENT.num_buckets, STUDENT.l2, bits),
            )  # fmt: skip
            note(
                f"student, {name}, {bits} bits",
                lambda p, s=student: users @ s.encode(list(texts[where[p]])).T,
            )
    others = teacher.item_vectors(encode_cached(tuned, cached["others"]))
    more = [*texts[train], *films.other], np.concatenate([wanted[train], others])
    student = fit_hashed_text(*more, STUDENT)
    note(
        "student, training and unrated texts, 8 bits",
        lambda p: users @ student.encode(list(texts[where[p]])).T,
    )
    known_means, new_means = (token_means(encoder, t) for t in (more[0], films.short))
    kernel, bias = ridge(known_means, more[1], 100.0)
    rest = fit_hashed_text(
        more[0], more[1] - known_means @ kernel - bias, HashedText(STUDENT.num_buckets, 0.3)
    )
    note(
        "student, token vectors and words",
        lambda p: (
            users @ (new_means[where[p]] @ kernel + bias + rest.encode(list(texts[where[p]]))).T
        ),
    )
    scores = wanted[train] @ users.T
    for name, share, config in (
        ("student, crossed words", 1.0, replace(CROSSED, embedding_dim=DIM)),
        ("student, crossed words and ratings", SHARE, CROSSED),
        ("same crossed words, no teacher", 0.0, UNTAUGHT),
    ):
        targets = share * scores + (1 - share) * ratings
        crossed = fit_hashed_text(list(texts[train]), targets, config)
        note(name, lambda p, s=crossed: s.axes @ s.encode(list(texts[where[p]])).T)
    direct = fit_hashed_text(list(texts[train]), ratings, HashedText(2**14, l2=3.0))
    note("same table, no teacher", lambda p: direct.encode(list(texts[where[p]])).T)
    return rows


def token_means(encoder: TextEncoder, texts: list[str]) -> np.ndarray:
    """Average the encoder's input vectors of a text's tokens, (n, d), in units of their spread."""
    table = encoder.model.get_layer("tokens").get_weights()[0]
    ids, mask = encoder.tokenize(texts)
    total = np.stack([table[i[m > 0]].sum(axis=0) for i, m in zip(ids, mask, strict=True)])
    return total / np.sqrt(mask.sum(axis=1, keepdims=True)) / table.std()


def untuned(
    films: Films,
    frozen: np.ndarray,
    tagged: np.ndarray,
    split: ColdItemSplit,
    note: Callable[[str, Any], None],
) -> None:
    """Rows of what needs no fine-tuning."""
    train = films.rows(split.train)
    where = {"validation": films.rows(split.validation), "test": films.rows(split.test)}
    baselines(films, split, note)
    for name, vectors in (("frozen", frozen), ("frozen, with tags", tagged)):
        model = fit_text_rating(vectors[train], split.train, embedding_dim=DIM, l2=L2)
        note(name, lambda p, m=model, v=vectors: m.score_items(v[where[p]]))
    for name, texts in (("TF-IDF", films.short), ("TF-IDF, with tags", films.full)):
        vectors = tfidf_vectors(texts)
        rank = min(split.train.num_users, vectors.shape[1])  # cut to 32, TF-IDF would lose
        model = fit_text_rating(vectors[train], split.train, embedding_dim=rank, l2=10.0)
        note(name, lambda p, m=model, v=vectors: m.score_items(v[where[p]]))
    means = split.train.to_csr() @ frozen[train]
    note("frozen, cosine to the mean", lambda p, m=means: m @ frozen[where[p]].T)


def film_years(data: Any) -> np.ndarray:
    """Years of release, 0 where a text has none."""
    return np.array([read_film(text).number or 0 for text in texts_without_tags(data)])


def year_features(data: Any) -> np.ndarray:
    """Nearness to every fourth year, (films, 32): each period may have a weight of its own."""
    return np.exp(-(((film_years(data)[:, None] - np.arange(1900, 2028, 4)) / 4) ** 2))


def baselines(films: Films, split: ColdItemSplit, note: Callable[[str, Any], None]) -> None:
    """Rows of what needs no language model, the strongest simple rival (words and facts) last."""
    parts = {"validation": split.validation, "test": split.test}
    users = split.train.num_users
    popular = np.bincount(split.train.item_ids, minlength=split.train.num_items).astype(float)
    rng = np.random.default_rng(0)
    note("random", lambda p: rng.normal(size=(users, parts[p].num_items)))
    years = film_years(split.train)

    def by_year(p: str) -> np.ndarray:
        near = np.abs(film_years(parts[p])[:, None] - years) <= 1
        scores = (near @ popular) / np.maximum(near.sum(axis=1), 1)
        return np.tile(scores, (users, 1))

    note("popularity of the year", by_year)
    genres = item_genres(split.train)
    shares = (genres.T @ popular) / np.maximum(genres.sum(axis=0), 1)

    def by_genre(p: str) -> np.ndarray:
        own = item_genres(parts[p])
        return np.tile(own @ shares / np.maximum(own.sum(axis=1), 1), (users, 1))

    note("popularity of the genres", by_genre)
    model = fit_text_rating(genres, split.train, embedding_dim=genres.shape[1], l2=L2)
    note("genres", lambda p: model.score_items(item_genres(parts[p])))
    both = {p: np.hstack([item_genres(d), year_features(d)]) for p, d in parts.items()}
    dated = np.hstack([genres, year_features(split.train)])
    wide = fit_text_rating(dated, split.train, embedding_dim=DIM, l2=L2)
    note("genres and year", lambda p: wide.score_items(both[p]))
    words = tfidf_vectors(films.short)
    where = {p: films.rows(d) for p, d in (parts | {"train": split.train}).items()}
    facts = both | {"train": dated}
    joined = {p: np.hstack([words[rows], facts[p]]) for p, rows in where.items()}
    rank = min(users, joined["train"].shape[1])
    whole = fit_text_rating(joined["train"], split.train, embedding_dim=rank, l2=L2)
    note("words, genres and year", lambda p: whole.score_items(joined[p]))


def latency(arguments: argparse.Namespace) -> None:
    films = Films(arguments.fallback)
    encoder, model = films.encoder, films.encoder.model
    texts = films.short[:: len(films.short) // 40]
    vectors = encoder.encode(films.short[:300])[:, :DIM].copy()
    student = fit_hashed_text(films.short[:300], vectors, STUDENT)
    targets = np.random.default_rng(0).normal(size=(300, CROSSED.embedding_dim))
    crossed = fit_hashed_text(films.short[:300], targets, CROSSED)
    wide_user = targets[0].astype(np.float32)
    table, user = vectors.copy(), vectors[0]
    kernel = np.random.default_rng(0).normal(size=(encoder.embedding_dim, DIM)).astype(np.float32)
    models = {
        "fine-tuned": model,
        "half the neurons": prune_text_neurons(model, 0.5),
        "3 blocks": keep_blocks(model, 3),
        "1 block": keep_blocks(model, 1),
    }
    turn = iter(range(10**9))
    functions: dict[str, Callable[[], Any]] = {}
    sizes: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, part in models.items():
            for runtime, quantization in (
                ("tflite", None), ("tflite", "int8"), ("onnx", None), ("onnx", "int8"),
            ):  # fmt: skip
                if runtime == "onnx" and name != "fine-tuned":
                    continue
                path = Path(folder, f"{len(sizes)}.{runtime}")
                export_text_encoder(part, path, quantization)
                run = ExportedEncoder(path)
                label = {"tflite": "LiteRT", "onnx": "ONNX Runtime"}[runtime]
                label = f"{name}, {quantization or 'float32'} {label}"
                sizes[label] = run.nbytes + kernel.nbytes

                def request(run: Any = run) -> Any:
                    text = texts[next(turn) % len(texts)]
                    return run(*encoder.tokenize([text]))[0] @ kernel @ user

                functions[label] = request
        functions["tokenizer alone"] = lambda: encoder.tokenize([texts[next(turn) % len(texts)]])
        functions["student"] = lambda: student.encode_one(texts[next(turn) % len(texts)]) @ user
        functions["crossed student"] = lambda: (
            crossed.encode_one(texts[next(turn) % len(texts)]) @ wide_user
        )
        functions["precomputed vectors"] = lambda: table[next(turn) % len(table)] @ user
        sizes |= {"student": student.nbytes, "crossed student": crossed.nbytes}
        sizes |= {"precomputed vectors": 4 * DIM * len(films.short)}
        with threadpool_limits(1):
            found = compare_latency(
                functions, baseline="fine-tuned, float32 LiteRT", rounds=20, calls_per_round=20
            )
    frame = found.to_frame().drop(columns=["throughput", "hardware"]).round(4)
    frame["bytes"] = pd.Series(sizes)
    print(frame.to_string())
    if not films.data.is_synthetic:
        frame.assign(**QUIET).to_csv(RESULTS / "large_model_latency.csv")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=["quality", "baselines", "latency"], default="quality")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10, 20)))
    parser.add_argument("--students-only", action="store_true")
    parser.add_argument("--without-runtimes", action="store_true")
    parser.add_argument("--fallback", choices=["synthetic"], default=None)
    arguments = parser.parse_args()
    parts = {"quality": quality, "baselines": baselines_only, "latency": latency}
    parts[arguments.part](arguments)


if __name__ == "__main__":
    main()
