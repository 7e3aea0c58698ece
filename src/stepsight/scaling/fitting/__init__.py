"""The one engine that fits everything here: laws, elbows, relations, surfaces and profiles.

`form` says what a family of curves is, `search` finds its optimum from many starts at once,
`resampling` draws the data that could have been measured instead, `profile` follows one parameter,
`quality` says what a fit is worth. Each room brings its own forms.
"""
