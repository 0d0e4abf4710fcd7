"""The server: GET /health, and POST /predict with {"images": [[64 grey values from 0 to 16], …]}."""

import os

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from digits.model import SIDE, WHITE, as_input, load

WEIGHTS = "model/leptonnet.pt"
PIXELS = SIDE * SIDE
IMAGES_AT_MOST = 256


def images_of(body):
    """The images of a request's body. Raises ValueError with a sentence for the caller where it holds none."""
    images = body.get("images") if isinstance(body, dict) else None
    if not isinstance(images, list) or not 1 <= len(images) <= IMAGES_AT_MOST:
        raise ValueError(f'"images" must be a list of 1 to {IMAGES_AT_MOST} images')
    for number, image in enumerate(images):
        if not isinstance(image, list) or len(image) != PIXELS:
            raise ValueError(f"image {number} must be a list of {PIXELS} numbers")
        if not all(type(value) in (int, float) and 0 <= value <= WHITE for value in image):
            raise ValueError(f"image {number} must hold numbers from 0 to {WHITE} only")
    return images


@torch.inference_mode()
def answer(model, images):
    """The most probable digit of each image, and the probabilities of all ten."""
    probabilities = model(as_input(images)).softmax(dim=1)
    return {"digits": probabilities.argmax(dim=1).tolist(), "probabilities": probabilities.tolist()}


def application(model):
    """The web application that answers with this model."""

    async def health(request):
        return PlainTextResponse("ok")

    async def predict(request):
        try:
            images = images_of(await request.json())
        except (ValueError, RecursionError) as error:  # the body is no JSON, or JSON that holds no images
            return JSONResponse({"error": str(error)}, status_code=400)
        return JSONResponse(await run_in_threadpool(answer, model, images))

    return Starlette(routes=[Route("/health", health), Route("/predict", predict, methods=["POST"])])


def main():
    torch.set_num_threads(1)  # replicas share the machine
    model = load(WEIGHTS)
    answer(model, [[0] * PIXELS])  # a real prediction before the port opens: who connects can be answered
    uvicorn.run(
        application(model),
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        log_level=os.environ.get("LOG_LEVEL", "info"),
        timeout_keep_alive=75,  # seconds: longer than a proxy in front keeps an idle connection
        timeout_graceful_shutdown=5,  # seconds for requests under way when it is asked to stop
    )


if __name__ == "__main__":
    main()
