"""Training on images without doing anything twice: the project's own part of SFT, DPO and KTO.

An image is encoded once (``models.features``), rows on one image share its tokens in a prefix tree
(``forest``), only supervised positions are scored (``head``), the reference is asked once
(``reference``). ``trainers`` and ``preferences`` put these under TRL's trainers, which keep the
loop, the optimizer, the checkpoints and the loss of SFT.
"""
