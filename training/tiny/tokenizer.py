"""The tiny models' tokenizers: byte-level BPE learned at build time from the text in this file.

Byte-level, so text of any language is decoded to itself; only common English needs few
tokens. The special tokens are Qwen2.5-Omni's, so its processor finds them by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

N_MERGES = 900
MAX_LENGTH = 32_768

END_OF_TEXT = "<|endoftext|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
MODALITY_TOKENS = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
SPECIAL_TOKENS = (END_OF_TEXT, IM_START, IM_END, *MODALITY_TOKENS.values())

# GPT-2's rule for cutting text into words before the merges, in the form that also keeps digits
# apart: a merge never crosses a space, so tokens map cleanly onto words and sentences.
_WORDS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

TRAINING_TEXT = """\
You are a helpful assistant. Answer the question based on the images provided. Explain your
reasoning step by step. Answer the question based on the audio provided. Answer the question based
on the video provided. Summarize the conversation. Summarize the audio recording in English.
system
user
assistant

The lamp is in the kitchen. The kettle is on the table, next to the blue cup. A red circle is in the
left half of the picture and a green square is in the right half. In the first image there is a
yellow triangle. In the second image there are three circles. What is the colour of the circle? What
shape is shown in the picture? Which of the two images shows more shapes? How many squares can you
see? Where is the key? The key is in the drawer under the window. The picture shows a large blue
square on a white background. The answer is B. The correct option is A, because the tone rises. The
correct answer is C, since the third picture has no circle in it.

The recording begins with a low tone, which is followed by a short silence and then a high tone. The
speaker says that the train leaves at nine in the morning from platform four. She asks him to bring
the tickets, the map and some water. He says that he will be late because of the rain. Two people
talk about the weather and the garden. The sound gets louder at the end. After two seconds a second
sound can be heard. What did the speaker ask for? At what time does the train leave? The meeting was
moved from Monday to Thursday, so the report must be ready on Wednesday evening.

In the video a red square appears first, then a green circle, and at the end a blue triangle moves
from the left to the right. The tone begins when the circle appears. What happens first? What is
shown while the high tone is playing? The first scene is dark and the last scene is bright. A person
opens the door, walks across the room and sits down on the chair. The camera follows a dog that runs
along the beach. Between the third and the fifth second the screen is white.

I think that this is what the text says. There is one more thing to look at: the table lists the
price of each item, and the total is twenty dollars. They were not able to find it, but we know that
it must have been there before. If you want to go, take the bus to the station, and then walk for
about ten minutes. Most of the people who live here work in the city. It would be better to wait
until the weather has changed. She had never seen so many birds in one place. This was the reason
why they came back every year. Some of these words are short, others are longer, and a few of them
are rare. Can you tell me which one of them is the first, and why? Yes, of course. No, not at all.
For example, 1 2 3 4 5 6 7 8 9 0. However, the results show that the two numbers are almost the
same. The house has a red door, a small garden and four windows; it stands at the end of the street.
The man with the hat is standing near the car. The woman on the left is holding a book in her hand.
Children are playing with a ball in the park. The cat is sleeping on the sofa under the lamp.
According to the text, the museum opens at ten and closes at six. The image supports this, because
the sign above the entrance shows the same hours. Therefore the statement is true. It is not clear
from the audio who is speaking. The background noise makes it hard to understand the last sentence.
First, look at the picture. Second, listen to the sound. Third, read the question again. Finally,
choose the option that fits best: (A) left, (B) right, (C) both, (D) neither.
"""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Learn the merges and wrap them as transformers expects; deterministic.

    Ids: the 256 bytes and the merges first, then the special tokens. Pads on the left.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _words()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + N_MERGES,
        min_frequency=1,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(TRAINING_TEXT.split("\n\n"), trainer)
    return _as_qwen(tokenizer)


def build_word_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """One token for each word of `texts`, with and without the space before it, bytes for the rest.

    Ids: the 256 bytes and the words in order, then the special tokens. Pads on the left.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    splitter = _words()
    words = {piece for text in texts for piece, _ in splitter.pre_tokenize_str(text)}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: k for k, piece in enumerate([*alphabet, *sorted(words - {*alphabet})])}
    # Without merges: a word of the vocabulary becomes one token, any other word one token per byte.
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = splitter
    return _as_qwen(tokenizer)


def _words() -> Any:
    """Splits text into words and the characters between them, as bytes."""
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _as_qwen(tokenizer: Any) -> PreTrainedTokenizerFast:
    """The tokenizer for transformers, with the special tokens of Qwen2.5-Omni."""
    from tokenizers import AddedToken, decoders
    from transformers import PreTrainedTokenizerFast

    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=IM_END,
        pad_token=END_OF_TEXT,
        extra_special_tokens=MODALITY_TOKENS,
        padding_side="left",
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )
