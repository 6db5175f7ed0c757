"""A tokenizer of whole words, in the format that the published one has: lower case, one piece a word, </s> at the end."""

import json
import unicodedata
from pathlib import Path

import clips

PAD, END, START, UNKNOWN = range(4)
SPECIAL = ["<pad>", "</s>", "<s>", "<unk>"]
MARKS = [".", ",", "!", "?", "-", "'"]


def vocabulary():
    """Pieces by id."""
    return SPECIAL + MARKS + ["▁"] + ["▁" + word for word in clips.words()]


def write(folder):
    """Writes tokenizer.json, tokenizer_config.json and special_tokens_map.json."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    special = [
        {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for i, text in enumerate(SPECIAL)
    ]
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    sequence = lambda name, kind: {"Sequence": {"id": name, "type_id": kind}}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}],
        },
        "pre_tokenizer": space,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [sequence("A", 0), end],
            "pair": [sequence("A", 0), end, sequence("B", 0), end],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [END], "tokens": ["</s>"]}},
        },
        "decoder": space,
        "model": {
            "type": "Unigram",
            "unk_id": UNKNOWN,
            "vocab": [[piece, 0.0 if i < 4 else -1.0 - 0.001 * i] for i, piece in enumerate(vocabulary())],
            "byte_fallback": False,
        },
    }
    names = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **names, "model_max_length": 512, "padding_side": "right"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, indent=1))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(names, indent=2) + "\n")


class Words:
    """Encodes what `clips` says as the tokenizer does: words, and marks at the end of a word."""

    def __init__(self):
        self.ids = {piece: i for i, piece in enumerate(vocabulary())}

    def encode(self, text):
        ids = []
        for word in unicodedata.normalize("NFKC", text).lower().split():
            tail = []
            while word and word[-1] in MARKS:
                tail.insert(0, self.ids[word[-1]])
                word = word[:-1]
            if word:
                known = self.ids.get("▁" + word)
                # An unknown word is the space, which is a piece, and what follows.
                ids += [self.ids["▁"], UNKNOWN] if known is None else [known]
            ids += tail
        return ids + [END]
