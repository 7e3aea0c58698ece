"""Answers for whole collections of a user's own pictures and films, and the files they go to."""
