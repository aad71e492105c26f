"""Text to token numbers and back, without loss: byte-level pieces in a Hugging Face tokenizer.json.

Numbers 0 to 4 are [PAD] [BOS] [EOS] [UNK] <|separator|>, then the 256 bytes, then what was learned.
Digits always stand alone. Only `encode_chat` and `encode_prompt` write the separator; text that spells it
stays text.

[T]  The splitting pattern of Mistral's Tekken tokenizer: of the pre-tokenizers that llama.cpp knows by
     name, the one that splits digits and takes whole words before merges (ignore_merges), which "words"
     needs. So all units use it.
"""

import codecs
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from colossi.data.chat import SEPARATOR, Message, Piece, pieces, prompt_pieces
from colossi.errors import DataError

SPECIALS = ("[PAD]", "[BOS]", "[EOS]", "[UNK]", SEPARATOR)
TEKKEN = (  # [T]
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SMALLEST = len(SPECIALS) + 256
# A word earns a token when at least one pre-token in 10,000 is this word: about the thousand most frequent
# words of English prose, and the fixed words of a task's question, but not those that a spelling task draws.
WORD_SHARE = 1e-4


class Tokenizer:
    """A tokenizer.json and the numbers of its special tokens."""

    pad, bos, eos, unk = 0, 1, 2, 3

    def __init__(self, inner: tokenizers.Tokenizer, name: str = "tokenizer") -> None:
        self.inner = inner
        self.inner.encode_special_tokens = True  # text that spells a special token is encoded as text
        for number, special in enumerate(SPECIALS[:4]):
            if inner.token_to_id(special) != number:
                raise DataError(f"{name}: token {number} is not {special}", _SHAPE)
        separator = inner.token_to_id(SEPARATOR)
        if separator is None:
            raise DataError(f"{name}: has no token {SEPARATOR}", _SHAPE)
        self.separator: int = separator
        self.vocabulary: int = inner.get_vocab_size()
        self._bytes_of = _byte_pieces(inner, name)

    @classmethod
    def train(cls, texts: Iterator[str], vocabulary: int, units: str) -> "Tokenizer":
        """Learn at most `vocabulary` tokens from `texts`; fewer where the texts hold fewer."""
        if vocabulary < SMALLEST:
            raise DataError(
                f"a vocabulary of {vocabulary} is too small: special tokens and bytes alone are {SMALLEST}",
                f"set model.vocabulary to {SMALLEST} or more",
            )
        if units == "subwords":
            return cls(_train_subwords(texts, vocabulary))
        words = _frequent_words(texts, vocabulary - SMALLEST) if units == "words" else []
        return cls(_whole_words(words))

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read a tokenizer.json."""
        if not Path(path).is_file():
            raise DataError(f"{path}: no such tokenizer file", "give the path of a tokenizer.json")
        try:
            inner = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise DataError(f"{path}: not a tokenizer.json: {error}", _SHAPE) from error
        return cls(inner, str(path))

    def save(self, path: str | Path) -> None:
        """Write a tokenizer.json."""
        self.inner.save(str(path))

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; never a special one."""
        return self.encode_many([text])[0]

    def encode_many(self, texts: list[str]) -> list[list[int]]:
        """`encode` of each, in parallel threads."""
        return [encoding.ids for encoding in self.inner.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of these tokens, special ones left out; bytes that are no UTF-8 become U+FFFD."""
        return self.bytes_of(ids).decode("utf-8", errors="replace")

    def bytes_of(self, ids: Iterable[int]) -> bytes:
        """The bytes that these tokens stand for; none for special ones and numbers past the vocabulary."""
        table = self._bytes_of
        return b"".join(table[i] for i in ids if 0 <= i < len(table))

    def stream(self) -> "TextStream":
        """Decode tokens as they come."""
        return TextStream(self)

    def encode_chat(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """A whole chat, and which of its tokens the assistant says (its closing separators among them)."""
        return self.encode_chats([messages])[0]

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """A chat that ends with `Assistant:`; a prefix of the chat with the answer."""
        return self._join_pieces([list(prompt_pieces(messages))])[0][0]

    def encode_chats(self, chats: Sequence[Sequence[Message]]) -> list[tuple[list[int], list[bool]]]:
        """`encode_chat` of each, in parallel threads."""
        return self._join_pieces([list(pieces(messages)) for messages in chats])

    def _join_pieces(self, chats: list[list[Piece]]) -> list[tuple[list[int], list[bool]]]:
        texts = list(dict.fromkeys(piece.text for chat in chats for piece in chat))
        ids_of = dict(zip(texts, self.encode_many(texts), strict=True))
        joined = []
        for chat in chats:
            ids: list[int] = []
            answers: list[bool] = []
            for piece in chat:
                start = len(ids)
                ids += ids_of[piece.text]
                if piece.closed:
                    ids.append(self.separator)
                answers += [piece.answer] * (len(ids) - start)
            joined.append((ids, answers))
        return joined


class TextStream:
    """Tokens in, text out, never half a character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, *ids: int) -> str:
        """The text that is complete with these tokens; the rest waits."""
        return self._decoder.decode(self._tokenizer.bytes_of(ids))

    def end(self) -> str:
        """What still waits: U+FFFD for a character that was never completed."""
        return self._decoder.decode(b"", final=True)


def _splitter() -> pre_tokenizers.PreTokenizer:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(TEKKEN), "isolated"), byte_level])


def _with_splitter(model: models.Model) -> tokenizers.Tokenizer:
    inner = tokenizers.Tokenizer(model)
    inner.pre_tokenizer = _splitter()
    inner.decoder = decoders.ByteLevel()
    return inner


def _specials() -> list[AddedToken]:
    return [AddedToken(special, normalized=False, special=True) for special in SPECIALS]


def _train_subwords(texts: Iterator[str], vocabulary: int) -> tokenizers.Tokenizer:
    inner = _with_splitter(models.BPE(ignore_merges=True))
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        show_progress=False,
        special_tokens=_specials(),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    inner.train_from_iterator(texts, trainer)
    return inner


def _whole_words(words: list[str]) -> tokenizers.Tokenizer:
    """Bytes, and these words of the byte-level alphabet, with no merges: a word is known whole or spelled."""
    names = [*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet()), *words]
    numbers = {name: number for number, name in enumerate(names)}
    inner = _with_splitter(models.BPE(vocab=numbers, merges=[], ignore_merges=True))
    inner.add_special_tokens(_specials())
    return inner


def _frequent_words(texts: Iterator[str], most: int) -> list[str]:
    """The most frequent pre-tokens of two bytes or more, most frequent first, ties by name."""
    splitter = _splitter()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(piece for piece, _ in splitter.pre_tokenize_str(text))
    enough = max(2, counts.total() * WORD_SHARE)
    words = [(-count, word) for word, count in counts.items() if len(word) > 1 and count >= enough]
    return [word for _, word in sorted(words)[:most]]


def _byte_pieces(inner: tokenizers.Tokenizer, name: str) -> list[bytes]:
    """What each token stands for, in bytes; nothing for special tokens."""
    byte_of = _byte_of_character()
    specials = set(inner.get_added_tokens_decoder())
    table = [b""] * inner.get_vocab_size()
    for token, number in inner.get_vocab().items():
        if number in specials:
            continue
        if number >= len(table) or any(character not in byte_of for character in token):
            raise DataError(f"{name}: token {number} {token!r} is not made of bytes", _SHAPE)
        table[number] = bytes(byte_of[character] for character in token)
    missing = set(byte_of.values()) - {piece[0] for piece in table if len(piece) == 1}
    if missing:
        raise DataError(f"{name}: has no token for byte {min(missing)}", _SHAPE)
    return table


def _byte_of_character() -> dict[str, int]:
    """GPT-2's alphabet: printable Latin-1 stands for itself, the other bytes for characters from 256 on."""
    themselves = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in themselves]
    return {chr(b): b for b in themselves} | {chr(256 + i): b for i, b in enumerate(others)}


def token_type(vocabulary: int) -> "np.dtype[np.uint16] | np.dtype[np.uint32]":
    """The smallest type that holds every token."""
    return np.dtype(np.uint16) if vocabulary <= 1 << 16 else np.dtype(np.uint32)


_SHAPE = "use a byte-level tokenizer with [PAD] [BOS] [EOS] [UNK] as tokens 0 to 3 and " + SEPARATOR
