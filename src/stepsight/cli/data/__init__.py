"""`stepsight data`: procedural worlds and data sets, before anything is trained on them."""

from stepsight.cli.entry import Group

GROUP = Group(
    "stepsight data",
    "Procedural worlds and data sets, before anything is trained on them.",
    {
        "look": ("data.look", "any folder: what is in it, how it is stored; a list and a config"),
        "check": ("data.check", "read every file: counts, pairs, ranges, damaged files"),
        "show": ("data.show", "a grid of samples with their truth"),
        "prepare": ("data.prepare", "a data set as published, into the layout its reader wants"),
        "shard": ("data.shard", "any data set, into tar files with an index"),
        "latents": ("data.latents", "what a VAE makes of a run's data, coded ahead of training"),
        "stats": ("data.stats", "the trivial predictors: what a model has to beat"),
        "ceiling": ("data.ceiling", "the truth through encodings and a codec: the upper bound"),
    },
)
