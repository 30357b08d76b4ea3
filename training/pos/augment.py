def cut_at_random(document: list[Sentence], rng: random.Random) -> Iterator[list[Piece]]:
    """Cut a document into texts of 1 to MAX_SENTENCES sentences, varied in layout and case."""
    start = 0
    while start < len(document):
        end = start + rng.randint(1, MAX_SENTENCES)
        chunk = [
            with_bold_lead(sentence, rng.randint(1, 4)) if rng.random() < BOLD_CHANCE else sentence
            for sentence in document[start:end]
        ]
        if rng.random() < LOWER_CHANCE:
            chunk = [lower_cased(sentence) for sentence in chunk]
        yield as_list(chunk, rng) if rng.random() < LIST_CHANCE else as_prose(chunk, rng)
        start = end


def as_prose(chunk: list[Sentence], rng: random.Random) -> list[Piece]:
    """Join sentences with spaces, and with line breaks where a paragraph or a heading ends.

    A sentence without closing punctuation is always followed by a line break, as headings and list
    items are in prose, so that the splitter does not learn to guess boundaries in mid-sentence.
    """
    pieces: list[Piece] = []
    separator = ""
    for sentence, after in zip(chunk, [*chunk[1:], None], strict=True):
        is_heading = separator != " " and not sentence.is_closed and rng.random() < HEADING_CHANCE
        marked = with_marker(sentence, rng.choice(HASHES)) if is_heading else sentence
        pieces.append(Piece(separator, marked))
        ends = after and after.opens_paragraph and rng.random() < PARAGRAPH_BREAK_CHANCE
        separator = rng.choice(BREAKS) if ends or not sentence.is_closed else " "
    return pieces


def as_list(chunk: list[Sentence], rng: random.Random) -> list[Piece]:
    """Set sentences as the items of a numbered or bulleted list, one a line."""
    template = rng.choice(ENUMERATORS)
    first = rng.choice((1, 1, 1, 2, 5, 10))
    return [
        Piece("\n" if i else "", with_marker(sentence, template.format(n=first + i)))
        for i, sentence in enumerate(chunk)
    ]


def with_marker(sentence: Sentence, marker: str) -> Sentence:
    """Put a marker before a sentence, split as spaCy's tokenizer does ("2. " into 2 and .)."""
    parts = tuple(re.findall(r"\d+|[^\d\s]", marker))
    return replace(
        sentence,
        text=marker + sentence.text,
        words=parts + sentence.words,
        tags=tuple("NUM" if part.isdigit() else "PUNCT" for part in parts) + sentence.tags,
    )


def with_bold_lead(sentence: Sentence, n_words: int) -> Sentence:
    """Set the first n_words in Markdown bold."""
    end = 0
    for word in sentence.words[:n_words]:
        end = sentence.text.index(word, end) + len(word)
    stars, tags = ("*", "*"), ("PUNCT", "PUNCT")
    return replace(
        sentence,
        text=f"**{sentence.text[:end]}**{sentence.text[end:]}",
        words=stars + sentence.words[:n_words] + stars + sentence.words[n_words:],
        tags=tags + sentence.tags[:n_words] + tags + sentence.tags[n_words:],
    )


def lower_cased(sentence: Sentence) -> Sentence:
    """Return the sentence in lower case.

    Done here rather than with spacy.lower_case.v1, which loses the sentence starts of the texts it
    changes (spaCy 3.8) and so teaches the splitter that lower-case text has no boundaries.
    """
    words = tuple(word.lower() for word in sentence.words)
    return replace(sentence, text=sentence.text.lower(), words=words)


