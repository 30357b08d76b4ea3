"""Builds folders of speech models: the real architectures, tiny, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from omnitrace_core.runtime.process_state import preserve_process_state
from omnitrace_core.runtime.torchvision_shim import enable_transformers_vision

WIDTH = 32
WORDS = ("the", "a", "man", "angel", "walks", "paint@@", "ing", "forest", "你", "好", "世", "界")
_SANM = {
    "attention_heads": 2,
    "linear_units": 64,
    "num_blocks": 2,
    "dropout_rate": 0.0,
    "positional_dropout_rate": 0.0,
    "kernel_size": 11,
    "sanm_shfit": 0,
}
_ENCODER = {
    **_SANM,
    "output_size": WIDTH,
    "attention_dropout_rate": 0.0,
    "input_layer": "pe",
    "pos_enc_class": "SinusoidalPositionEncoder",
    "normalize_before": True,
    "selfattention_layer_type": "sanm",
}
_PREDICTOR = {"idim": WIDTH, "threshold": 1.0, "l_order": 1, "r_order": 1, "tail_threshold": 0.45}
_OF_TIMES = {
    "smooth_factor2": 0.25,
    "noise_threshold2": 0.01,
    "upsample_times": 3,
    "use_cif1_cnn": False,
    "upsample_type": "cnn_blstm",
}
_TOKENIZER = {
    "tokenizer": "CharTokenizer",
    "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
}
_FRAMES = {"fs": 16_000, "window": "hamming", "n_mels": 80, "frame_length": 25, "frame_shift": 10}


def build_paraformer(folder: Path, *, own_times: bool = True) -> str:
    """A Paraformer. own_times: the variant with a predictor of word times."""
    config = {
        "model": "BiCifParaformer" if own_times else "Paraformer",
        "model_conf": {"ctc_weight": 0.0, "predictor_bias": 1, "sampling_ratio": 0.75},
        "encoder": "SANMEncoder",
        "encoder_conf": _ENCODER,
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": {
            **_SANM,
            "att_layer_num": 2,
            "self_attention_dropout_rate": 0.0,
            "src_attention_dropout_rate": 0.0,
        },
        "predictor": "CifPredictorV3" if own_times else "CifPredictorV2",
        "predictor_conf": _PREDICTOR | (_OF_TIMES if own_times else {}),
        "frontend": "WavFrontend",
        "frontend_conf": {**_FRAMES, "lfr_m": 7, "lfr_n": 6},
        **_TOKENIZER,
    }
    tokens = ["<blank>", "<s>", "</s>", *WORDS, "<unk>"]
    folder = _save(folder, config, tokens, input_size=560)
    lines = "\n".join(f"{word} {word}" for word in WORDS)
    (folder / "seg_dict").write_text(lines, encoding="utf-8")
    return str(folder)


def build_detector(folder: Path, longest_ms: int = 4000) -> str:
    """An FSMN voice activity detector. With random weights, it finds speech everywhere."""
    config = {
        "model": "FsmnVADStreaming",
        "model_conf": {"max_single_segment_time": longest_ms, "max_end_silence_time": 800},
        "encoder": "FSMN",
        "encoder_conf": {
            "input_dim": 400,
            "input_affine_dim": 20,
            "fsmn_layers": 2,
            "linear_dim": 16,
            "proj_dim": 16,
            "lorder": 20,
            "rorder": 0,
            "lstride": 1,
            "rstride": 0,
            "output_affine_dim": 20,
            "output_dim": 8,
        },
        "frontend": "WavFrontendOnline",
        "frontend_conf": {**_FRAMES, "dither": 0.0, "lfr_m": 5, "lfr_n": 1},
    }
    return str(_save(folder, config, None, input_size=400))


def build_punctuator(folder: Path) -> str:
    """A CT-Transformer that puts random punctuation after words."""
    config = {
        "model": "CTTransformer",
        "model_conf": {
            "ignore_id": 0,
            "embed_unit": WIDTH,
            "att_unit": WIDTH,
            "dropout_rate": 0.0,
            "punc_list": ["<unk>", "_", "\uff0c", "。", "\uff1f", "、"],
            "punc_weight": [1.0] * 6,
            "sentence_end_id": 3,
        },
        "encoder": "SANMEncoder",
        "encoder_conf": {**_ENCODER, "input_size": WIDTH, "padding_idx": 0},
        **_TOKENIZER,
    }
    return str(_save(folder, config, ["<unk>", *WORDS]))


def _save(
    folder: Path, config: dict[str, Any], tokens: list[str] | None, input_size: int | None = None
) -> Path:
    """A FunASR directory with random weights."""
    import torch

    folder.mkdir(parents=True)
    top_level = {"model", "model_conf", "frontend", "frontend_conf", "tokenizer", "tokenizer_conf"}
    arguments = {key: value for key, value in config.items() if key not in top_level}
    arguments |= config["model_conf"]
    if tokens is not None:
        (folder / "tokens.json").write_text(json.dumps(tokens), encoding="utf-8")
        arguments["vocab_size"] = len(tokens)
    if input_size is not None:
        (folder / "am.mvn").write_text(_mean_and_variance(input_size), encoding="utf-8")
        arguments["input_size"] = input_size
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    enable_transformers_vision()
    with preserve_process_state(1, "funasr"):
        import funasr  # noqa: F401  (fills the table of models)
        from funasr.register import tables

        torch.manual_seed(0)
        model = tables.model_classes[config["model"]](**arguments)
        torch.save(model.state_dict(), folder / "model.pt")
    return folder


def _mean_and_variance(n: int) -> str:
    """The shift and scale that frontends apply to features, in Kaldi's text format."""

    def row(name: str, value: float) -> str:
        values = " ".join([str(value)] * n)
        return f"<{name}> {n} {n}\n<LearnRateCoef> 0 [ {values} ]\n"

    shift, scale = row("AddShift", 0.0), row("Rescale", 0.1)
    return f"<Nnet>\n<Splice> {n} {n}\n[ 0 ]\n{shift}{scale}</Nnet>\n"


def build_whisper(folder: Path, *, word_times: bool = True) -> str:
    """A multilingual Whisper that returns random words of a small vocabulary."""
    enable_transformers_vision()
    import torch
    from tokenizers import AddedToken, pre_tokenizers
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["Ġthe", "Ġman", "Ġwalks.", "Ġangel", "Ġforest,", "Ġmuseum?"]
    languages = ["<|en|>", "<|zh|>"]
    tasks = ["<|translate|>", "<|transcribe|>"]
    marks = ["<|startoftranscript|>", *languages, *tasks, "<|startoflm|>", "<|startofprev|>"]
    marks += ["<|nospeech|>", "<|notimestamps|>"]
    times = [f"<|{step * 0.02:.2f}|>" for step in range(1501)]
    vocab = {text: i for i, text in enumerate([*letters, *words, "<|endoftext|>", *marks, *times])}
    tokenizer = WhisperTokenizer(vocab=vocab, merges=[], pad_token="<|endoftext|>")
    tokenizer.add_special_tokens({"extra_special_tokens": marks})
    tokenizer.add_tokens([AddedToken(text, special=False) for text in times])
    ends: dict[str, Any] = {
        "bos_token_id": vocab["<|endoftext|>"],
        "eos_token_id": vocab["<|endoftext|>"],
        "pad_token_id": vocab["<|endoftext|>"],
        "decoder_start_token_id": vocab["<|startoftranscript|>"],
    }
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=len(tokenizer),
            d_model=WIDTH,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_target_positions=64,
            **ends,
        )
    )
    model.generation_config = GenerationConfig(
        max_length=24,
        # Single letters are suppressed, so that the model returns whole words.
        suppress_tokens=list(range(len(letters))),
        no_timestamps_token_id=vocab["<|notimestamps|>"],
        is_multilingual=True,
        lang_to_id={text: vocab[text] for text in languages},
        task_to_id={text.strip("<|>"): vocab[text] for text in tasks},
        max_initial_timestamp_index=50,
        prev_sot_token_id=vocab["<|startofprev|>"],
        **({"alignment_heads": [[0, 0], [1, 1]]} if word_times else {}),
        **ends,
    )
    WhisperProcessor(WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)
    model.save_pretrained(folder)
    return str(folder)


def build_embedder(folder: Path, pooling: str = "mean") -> str:
    """A BERT of random weights in the layout of sentence-transformers."""
    enable_transformers_vision()
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocab = ["[PAD]", "[UNK]", "apple", "pear", "plum", "motor", "wheel", "brake"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(vocab)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=len(vocab),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    model = BertModel(shape).requires_grad_(False)
    # Large word embeddings outweigh those of positions: texts of other words are far apart.
    model.embeddings.word_embeddings.weight.mul_(20)
    model.save_pretrained(folder)
    kinds = ("Transformer", "Pooling", "Normalize")
    paths = ("", "1_Pooling", "2_Normalize")
    modules = [
        {"idx": i, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16}))
    (folder / "1_Pooling").mkdir()
    settings = {
        "pooling_mode_cls_token": pooling == "cls",
        "pooling_mode_mean_tokens": pooling == "mean",
    }
    (folder / "1_Pooling/config.json").write_text(json.dumps(settings))
    return str(folder)
