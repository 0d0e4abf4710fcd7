"""GET /healthz, and POST /predict with {"rows": [[ten numbers], …]}."""

import os
import signal
import sys

import joblib
from flask import Flask, jsonify, request
from waitress import serve

FEATURES = 10
LIMIT = 1000


def rows_of(body):
    """The rows of a request's body. Raises ValueError where it holds none."""
    rows = body.get("rows") if isinstance(body, dict) else None
    if not isinstance(rows, list) or not rows:
        raise ValueError('"rows" must be a list of rows')
    for row in rows:
        if not isinstance(row, list) or len(row) != FEATURES:
            raise ValueError(f"a row must be a list of {FEATURES} numbers")
        if not all(type(value) in (int, float) and abs(value) < LIMIT for value in row):
            raise ValueError(f"a row must hold numbers between -{LIMIT} and {LIMIT} only")
    return rows


def application(model):
    app = Flask(__name__)

    @app.get("/healthz")
    def health():
        model.predict([[0.0] * FEATURES])
        return "ok"

    @app.post("/predict")
    def predict():
        try:
            rows = rows_of(request.get_json(silent=True))
        except ValueError as error:
            return jsonify(error=str(error)), 400
        return jsonify(predictions=model.predict(rows).tolist())

    return app


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # waitress then ends in order
    serve(application(joblib.load("model.joblib")), host="127.0.0.1", port=int(os.environ["PORT"]))
