#!/usr/bin/env bash
# transformers 5.23.0: a tokenizer whose vocabulary is not there opens without an error and reads all words alike.
#
# `CLIPTokenizer.from_pretrained` of a folder that has only `tokenizer_config.json` (a copy without `vocab.json` and
# `merges.txt`, a repository downloaded by patterns), or of a hub id that is not cached while offline, gives a tokenizer
# of two tokens: "red" and "two" are the same id, over and over, and a diffusion pipeline samples without any regard for
# the prompt. T5's gives one of 104, and AutoTokenizer does the same. mnemon refuses a base whose tokenizer has no
# vocabulary, and names the files that are missing.
#
# Expected output:
#   folder: CLIPTokenizer of 2 tokens, red == two: True
#   folder: T5Tokenizer of 104 tokens, red == two: True
#   AutoTokenizer: CLIPTokenizer of 2 tokens, red == two: True
#   hub id, offline: CLIPTokenizer of 2 tokens, red == two: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.23.0
cd "$folder"
mkdir copy
echo '{"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}' > copy/tokenizer_config.json
HF_HUB_OFFLINE=1 HF_HOME="$folder/empty" venv/bin/python - >found.txt 2>log.txt <<'PY'
from transformers import AutoTokenizer, CLIPTokenizer, T5Tokenizer

cases = [
    ("folder", CLIPTokenizer, "copy"),
    ("folder", T5Tokenizer, "copy"),
    ("AutoTokenizer", AutoTokenizer, "copy"),
    ("hub id, offline", CLIPTokenizer, "example/not-in-the-cache"),
]
for what, kind, name in cases:
    tokenizer = kind.from_pretrained(name)
    red, two = (set(tokenizer(word)["input_ids"]) for word in ("red", "two"))
    print(f"{what}: {type(tokenizer).__name__} of {len(tokenizer)} tokens, red == two: {red == two}")
PY
cat found.txt
diff found.txt - <<'TXT'
folder: CLIPTokenizer of 2 tokens, red == two: True
folder: T5Tokenizer of 104 tokens, red == two: True
AutoTokenizer: CLIPTokenizer of 2 tokens, red == two: True
hub id, offline: CLIPTokenizer of 2 tokens, red == two: True
TXT
