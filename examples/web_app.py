"""Your own model in a FastAPI app: MODEL=my-model.xml uvicorn web_app:app.

It needs fastapi, python-multipart and uvicorn. `regnet serve` does more: batches, limits, metrics.

    curl -F photo=@cat.jpg http://127.0.0.1:8000/classify
"""

import os
from typing import Any

from fastapi import FastAPI, HTTPException, UploadFile

import regnet

classifier = regnet.load(os.environ.get("MODEL", "bundled"))
app = FastAPI(title=f"Photos to classes by {classifier.metadata.name}")


@app.post("/classify")
def classify(photo: UploadFile) -> dict[str, Any]:
    """Return the three most probable classes; FastAPI calls this in one of its threads."""
    prediction = classifier(photo.file, top_k=3)
    if prediction.error is not None:
        raise HTTPException(422, f"{photo.filename}: {prediction.error}")
    return {score.label: score.probability for score in prediction.predictions}
