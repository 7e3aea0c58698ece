"""Films: frames in, steady answers, films out; how much the answers flicker."""

from stepsight.predicting.film.following import predict_film as predict_film
from stepsight.predicting.film.reading import frame_rate as frame_rate
from stepsight.predicting.film.reading import frames as frames
from stepsight.predicting.film.reading import is_film as is_film
from stepsight.predicting.film.writing import FilmWriter as FilmWriter
