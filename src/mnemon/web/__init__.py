"""The page of `mnemon web`: teach, draw, look and export in a browser, on this machine alone (extra `web`).

What the page does is in modules without Gradio (`workspace`, `uploads`, `training`, `drawing`, `timeline`,
`forgetting`, `exchange`), what it looks like in `*_tab` and `page`, who may ask in `guard` and `server`.
"""
