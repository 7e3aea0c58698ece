"""`stepsight scaling`: what training and sampling compute buy."""

from stepsight.cli.entry import Group

GROUP = Group(
    "stepsight scaling",
    "What training and sampling compute buy.",
    {
        "fit": ("scaling.fit", "laws in training compute, from records of runs or any table"),
        "frontier": ("scaling.frontier", "the settings of a sweep that are worth their cost"),
        "plan": ("scaling.plan", "what to run with a budget of model calls, FLOPs or time"),
        "allocate": ("scaling.allocate", "parameters or samples, training or sampling"),
        "loss-to-loss": ("scaling.loss_to_loss", "one loss or error of a model from another"),
        "ladder": ("scaling.ladder", "train a family of models, and forecast a larger one"),
        "report": ("scaling.report", "one page: laws, forecasts against outcomes, what failed"),
    },
)
