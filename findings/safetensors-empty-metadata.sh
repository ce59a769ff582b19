#!/usr/bin/env bash
# safetensors 0.8.0: an empty metadata dictionary and no tensors make a file that safetensors itself cannot read.
#
# `save_file({}, path, metadata={})` reports success and writes the header `{},"__metadata__":{}}`, which is not JSON.
# `safe_open` on it raises "invalid JSON in header: trailing characters". With `metadata=None`, with one entry in the
# dictionary, or with one tensor, the file is sound. A program that saves "what there is" (no deltas yet, no notes yet)
# notices only when it opens the file again. mnemon passes None for an empty dictionary.
#
# Expected output:
#   metadata None: header {} -> opens, 0 tensors
#   metadata {}: header {},"__metadata__":{}} -> SafetensorError
#   metadata {'a': 'b'}: header {"__metadata__":{"a":"b"}} -> opens, 0 tensors
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet safetensors==0.8.0 numpy==2.4.6
cd "$folder"
venv/bin/python - >found.txt <<'PY'
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

for metadata in (None, {}, {"a": "b"}):
    save_file({}, "empty.safetensors", metadata=metadata)
    with open("empty.safetensors", "rb") as file:
        header = file.read()[8:].decode().rstrip()
    try:
        with safe_open("empty.safetensors", framework="np") as opened:
            outcome = f"opens, {len(list(opened.keys()))} tensors"
    except SafetensorError as error:
        assert "trailing characters" in str(error), error
        outcome = "SafetensorError"
    print(f"metadata {metadata}: header {header} -> {outcome}")
PY
cat found.txt
diff found.txt - <<'TXT'
metadata None: header {} -> opens, 0 tensors
metadata {}: header {},"__metadata__":{}} -> SafetensorError
metadata {'a': 'b'}: header {"__metadata__":{"a":"b"}} -> opens, 0 tensors
TXT
