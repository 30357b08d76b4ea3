"""Write the demo corpus: `python -m training.demo.corpus DEST`.

DEST/samples.jsonl has one sample per line in our own input form, DEST/media their media. All four
modalities occur, alone and mixed. Some samples have a response, written by hand and true of the
media, so that the demo also replays responses that the traced model did not write. The model
generates the responses of the others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.commands.terminal import SafeParser, print_text
from training.demo.media import write_broken_media, write_media
from training.world.files import world_row
from training.world.tasks import TASK_NAMES, make_sample

Row = dict[str, object]

_ANNOUNCED = (
    "The train to Lisbon leaves at nine from platform four. Please bring the tickets.",
    "The meeting moved to Thursday. Anna will book the room.",
)
_EXPLAIN = "Answer the question based on the input provided. Explain your reasoning step by step."


def make_corpus(dest: Path, with_errors: bool = False, planted: int = 0) -> Path:
    """Write the corpus and return the path of its samples.jsonl.

    with_errors: append the rows of `faulty_rows`, each of which must become an error row. planted:
    number of samples of each task of the planted world; they come first.
    """
    media = dest / "media"
    spoken_s = write_media(media)
    rows = [
        world_row(dest, make_sample(task, 4, f"demo-{number}"))
        for task in TASK_NAMES
        for number in range(planted)
    ]
    rows += [*_text_rows(), *_image_rows(), *_audio_rows(spoken_s), *_video_rows(), *_mixed_rows()]
    if with_errors:
        write_broken_media(media)
        rows += [row for row, _ in faulty_rows()]
    path = dest / "samples.jsonl"
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def faulty_rows() -> list[tuple[Row, str]]:
    """Rows that cannot be traced, each with the error code that it must get.

    The codes are those of `omnitrace_core.errors`. The broken media are in the corpus's folder only
    if it was made with errors.
    """

    def row_of(sample_id: str, *parts: Row) -> Row:
        return _sample(sample_id, [_user(*parts, _text("What is this?"))])

    repeated = row_of("text-lookup", _text("This row repeats the id of an earlier one."))
    nameless: Row = {"messages": [_user(_text("This row has no id."))]}
    return [
        (row_of("bad-image", _image("corrupt.png")), "media_corrupt"),
        (row_of("bad-path", _image("nowhere.png")), "media_missing"),
        (row_of("bad-sound", _audio("empty.wav")), "media_empty"),
        (row_of("bad-clip", _video("truncated.mp4")), "media_corrupt"),
        (row_of("bad-type", {"type": "smell", "uri": "media/rose.smell"}), "unknown_part_type"),
        (_sample("bad-messages", []), "invalid_sample"),
        (repeated, "duplicate_sample_id"),
        (nameless, "missing_sample_id"),
    ]


def _text(text: str) -> Row:
    return {"type": "text", "text": text}


def _image(name: str) -> Row:
    return {"type": "image", "uri": f"media/{name}"}


def _audio(name: str) -> Row:
    return {"type": "audio", "uri": f"media/{name}"}


def _video(name: str, **options: float) -> Row:
    return {"type": "video", "uri": f"media/{name}"} | ({"options": options} if options else {})


def _message(role: str, *parts: Row) -> Row:
    return {"role": role, "content": list(parts)}


def _user(*parts: Row) -> Row:
    return _message("user", *parts)


def _sample(
    sample_id: str,
    messages: Sequence[Row],
    response: str | None = None,
    reference: str | None = None,
    options: Sequence[str] = (),
) -> Row:
    row: Row = {"sample_id": sample_id, "messages": list(messages)}
    row["metadata"] = {"suite": "demo", "response_by": "hand" if response else "model"}
    if response is not None:
        row["response"] = response
    if reference is not None:
        row["reference_answer"] = reference
    if options:
        row["options"] = list(options)
    return row


def _text_rows() -> list[Row]:
    facts = (
        "The lamp is in the kitchen. The key is in the drawer under the window. "
        "The kettle stands on the table, next to the blue cup."
    )
    agenda = "Monday: review of the budget.\nTuesday: visit to the museum.\nFriday: no meetings."
    return [
        _sample(
            "text-lookup",
            [_user(_text(facts), _text("Where is the key, and what stands beside the cup?"))],
            "The key is in the drawer under the window. The kettle stands next to the blue cup.",
            "in the drawer; the kettle",
        ),
        _sample(
            "text-instructed",
            [
                _message("system", _text("You plan weeks. Answer in two short sentences.")),
                _user(_text(agenda), _text("When can we meet, and what happens on Tuesday?")),
            ],
            "You can meet on Friday, which has no meetings. On Tuesday there is the museum visit.",
            "Friday; the visit to the museum",
        ),
        _sample(
            "text-dialogue",
            [
                _user(_text("I left my umbrella on the bus. It was the number seven.")),
                _message("assistant", _text("Then ask at the office of the bus company.")),
                _user(_text("Which bus should I name there?")),
            ],
            reference="number seven",
        ),
    ]


def _image_rows() -> list[Row]:
    choices = ["A. a green square", "B. a yellow triangle", "C. three blue circles"]
    return [
        _sample(
            "image-shapes",
            [_user(_image("two_shapes.png"), _text("Which shapes are there, and where?"))],
            "There is a red circle on the left. On the right there is a green square.",
            "a red circle on the left, a green square on the right",
        ),
        _sample(
            "image-pair",
            [
                _user(
                    _text("Compare the two pictures."),
                    _image("two_shapes.png"),
                    _image("three_circles.png"),
                    _text("Which of them shows more shapes?"),
                )
            ],
            "The first picture shows two shapes. The second shows three blue circles, so it has "
            "more.",
            "the second",
        ),
        _sample(
            "image-choice",
            [
                _user(
                    _image("triangle.png"),
                    _text("What does the picture show?\n" + "\n".join(choices)),
                )
            ],
            "The picture shows one yellow shape with three corners. The answer is B.",
            "B",
            choices,
        ),
        _sample(
            "image-generated",
            [_user(_image("house.png"), _text("Describe the picture."))],
            reference="a blue house with a dark roof",
        ),
    ]


def _audio_rows(spoken_s: Sequence[tuple[float, float]]) -> list[Row]:
    """spoken_s: when the two announcements are spoken, (start, end)."""
    announcements = _audio("announcements.wav")
    announcements["segments"] = [
        {"start_s": start, "end_s": end, "text": text, "words": []}
        for (start, end), text in zip(spoken_s, _ANNOUNCED, strict=True)
    ]
    return [
        _sample(
            "audio-speech",
            [_user(announcements, _text("When does the train leave, and who books the room?"))],
            "The train to Lisbon leaves at nine. Anna will book the room for Thursday.",
            "at nine; Anna",
        ),
        _sample(
            "audio-tones",
            [_user(_audio("tones.wav"), _text("How do the two tones differ?"))],
            reference="the second is an octave higher and longer",
        ),
    ]


def _video_rows() -> list[Row]:
    return [
        _sample(
            "video-shapes",
            [_user(_video("in_turn.mp4"), _text("What appears in the video, and in what order?"))],
            "First there is a red circle. Then a green square takes its place. "
            "At the end a blue triangle is shown.",
            "red circle, green square, blue triangle",
        ),
        _sample(
            "video-sound",
            [_user(_video("bell.mp4"), _text("What happens when the tone begins?"))],
            "The screen is dark and silent for two seconds. When the tone begins, a yellow circle "
            "appears.",
            "a yellow circle appears",
        ),
        _sample(
            "video-two",
            [
                _user(
                    _video("bell.mp4"),
                    _video("in_turn.mp4", fps=1.0),
                    _text("Which of the two videos has sound?"),
                )
            ],
            reference="the first",
        ),
    ]


def _mixed_rows() -> list[Row]:
    def everything() -> list[Row]:
        return [
            _message("system", _text(_EXPLAIN)),
            _user(
                _text("Red parcels are heavy. Yellow parcels are light."),
                _image("house.png"),
                _audio("parcel.flac"),
                _video("in_turn.mp4"),
                _text("Where does the parcel go, and which shape is shown last?"),
            ),
        ]

    return [
        _sample(
            "all-four",
            everything(),
            "The voice says that the parcel goes to the blue house, and the picture shows a blue "
            "house. The last shape in the video is a blue triangle. Red parcels are heavy.",
            "to the blue house; a blue triangle",
        ),
        _sample("all-four-generated", everything(), reference="to the blue house; a blue triangle"),
    ]


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = SafeParser(prog="python -m training.demo.corpus", description=__doc__)
    parser.add_argument("dest", type=Path, help="folder to write the corpus to")
    parser.add_argument("--with-errors", action="store_true", help="add rows that must fail")
    parser.add_argument("--planted", type=int, default=0, help="samples of each planted task")
    args = parser.parse_args(argv)
    path = make_corpus(args.dest, args.with_errors, args.planted)
    n_rows = len(path.read_text(encoding="utf-8").splitlines())
    print_text(f"demo corpus: {n_rows} samples in {path}, their media in {path.parent / 'media'}")


if __name__ == "__main__":
    main()
