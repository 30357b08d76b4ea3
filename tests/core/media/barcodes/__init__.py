"""Videos whose frames carry their number, and a judge of what a reader makes of them.

`corpus` lists the files and how each is made, so that the time of every frame is known without
reading the file; `judge` compares them with what `decode_part` returns.
"""
