"""Train, measure and save the English tagger and sentence splitter that ships with OmniTrace.

    python -m training.pos.train --data ud-ewt --out omnitrace_core/assets/en_ud_small

ud-ewt holds train.conllu.xz, dev.conllu.xz and test.conllu.xz of UD English Web Treebank. Scores
go to metrics.json beside this file.
"""

import argparse
import json
import os
import random
import shutil
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

# One core: sums are in the same order on every machine, and the speed is that of one core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import spacy
from spacy.language import Language
from spacy.training.initialize import init_nlp
from spacy.training.loop import train as run_training_loop
from spacy.util import load_config

from .augment import cut_at_random
from .corpus import Sentence, as_documents, join_plainly, read_conllu, write_docbin
from .evaluate import score_prose, score_treebank, words_per_second

HERE = Path(__file__).parent

# Written with a full stop and split off it by spaCy's English rules. Left out: words that also end
# sentences ("no.", "art.", "min.").
# fmt: off
ABBREVIATIONS = (
    "al", "approx", "ave", "blvd", "ca", "capt", "cf", "chap", "col", "dept", "ed", "eds", "eq",
    "eqs", "est", "etc", "fig", "figs", "ft", "incl", "lt", "nos", "pp", "rd", "ref", "refs",
    "resp", "sec", "secs", "sgt", "sq", "sr", "tbsp", "tsp", "viz", "vol",
)
# fmt: on

META = {
    "name": "ud_small",
    "version": "1.0.0",
    "description": "Universal part-of-speech tags and sentence boundaries for English.",
    "author": "OmniTrace",
    "license": "CC BY-SA 4.0",
    "spacy_version": ">=3.8.0,<4.0.0",
    "sources": [
        {
            "name": "Universal Dependencies English Web Treebank (UD_English-EWT) v2.15",
            "url": "https://github.com/UniversalDependencies/UD_English-EWT",
            "author": "Natalia Silveira, Timothy Dozat, Sebastian Schuster, Miriam Connor, "
            "Marie-Catherine de Marneffe, Nathan Schneider, Ethan Chi, Samuel Bowman, Hanzhi Zhu, "
            "Daniel Galbraith, Christopher Manning, John Bauer and contributors",
            "license": "CC BY-SA 4.0",
        }
    ],
}


def read_split(data_dir: Path, split: str) -> list[list[Sentence]]:
    """Read one split as EWT documents."""
    return list(as_documents(read_conllu(data_dir / f"{split}.conllu.xz")))


def train(data_dir: Path, work_dir: Path) -> Language:
    """Train with config.cfg and return the checkpoint that scores best on the dev split."""
    paths = {f"paths.{split}": str(work_dir / f"{split}.spacy") for split in ("train", "dev")}
    config = load_config(HERE / "config.cfg", overrides=paths)
    rng = random.Random(config["system"]["seed"])
    vocab = spacy.blank("en").vocab
    cut = (text for doc in read_split(data_dir, "train") for text in cut_at_random(doc, rng))
    write_docbin(work_dir / "train.spacy", vocab, cut)
    whole = (join_plainly(doc, "\n\n") for doc in read_split(data_dir, "dev"))
    write_docbin(work_dir / "dev.spacy", vocab, whole)
    nlp = init_nlp(config)
    add_abbreviations(nlp)
    checkpoints = work_dir / "checkpoints"
    checkpoints.mkdir()
    run_training_loop(nlp, checkpoints)
    return spacy.load(checkpoints / "model-best")


def add_abbreviations(nlp: Language) -> None:
    """Let the tokenizer keep the full stop of an abbreviation, so that it ends no sentence."""
    for word in ABBREVIATIONS:
        for form in (f"{word}.", f"{word.capitalize()}."):
            nlp.tokenizer.add_special_case(form, [{"ORTH": form}])  # type: ignore[union-attr]


def save(nlp: Language, out_dir: Path) -> None:
    """Write a pipeline directory without paths of this machine, and the licence notice.

    The vocabulary is not written: there are no vectors, spaCy's class has a blank English
    vocabulary, and nothing reads the rest, which is the list of training words.
    """
    nlp.config["paths"].update({"train": None, "dev": None})
    nlp.meta.pop("performance", None)  # per-label scores on dev; metrics.json has those on test
    nlp.meta.update(META)
    nlp.to_disk(out_dir, exclude=["vocab"])
    shutil.copyfile(HERE / "NOTICE", out_dir / "NOTICE")


def measure(model_dir: Path, data_dir: Path) -> dict[str, object]:
    """Score the saved pipeline on the EWT test split and on the hand-split prose."""
    nlp = spacy.load(model_dir)
    documents = read_split(data_dir, "test")
    n_bytes = sum(path.stat().st_size for path in model_dir.rglob("*") if path.is_file())
    return {
        "ewt_test": {
            "n_documents": len(documents),
            "n_sentences": sum(len(document) for document in documents),
            "blank_line_between_paragraphs": asdict(score_treebank(nlp, documents, "\n\n")),
            "space_between_paragraphs": asdict(score_treebank(nlp, documents, " ")),
        },
        "prose": {
            name: asdict(score_prose(nlp, HERE / "prose" / f"{name}.txt"))
            for name in ("dev", "test")
        },
        "words_per_second": words_per_second(nlp, documents),
        "n_bytes": n_bytes,
        "versions": {name: version(name) for name in ("spacy", "thinc", "numpy")},
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the .conllu.xz files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the trained pipeline")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work_dir:
        nlp = train(args.data, Path(work_dir))
        save(nlp, args.out)
    metrics = json.dumps(measure(args.out, args.data), indent=2, ensure_ascii=False)
    (HERE / "metrics.json").write_text(metrics + "\n", encoding="utf-8")
    print(metrics)


if __name__ == "__main__":
    main()
