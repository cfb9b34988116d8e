"""What people usually call the columns of a data set."""

BOXES = "boxes"
CAPTIONS = ("caption", "captions", "text", "description")
"""Names of a column that describes the image."""
_IMAGES = (
    "image", "images", "img", "imgs", "image_path", "image_paths", "image_file", "img_path",
    "file_name", "filename", "picture", "photo", "path", "file",
)  # fmt: skip
_QUESTION = (
    "question", "query", "prompt", "instruction", "problem", "user", "input", "text", "caption",
)  # fmt: skip
REPLY = ("completion", "response", "answer", "answers", "output")
NAMES: dict[str, tuple[str, ...]] = {
    "image": _IMAGES,
    "question": _QUESTION,
    "answers": (
        "answers", "answer", "label", "labels", "response", "output", "target", "completion",
        "ground_truth", "solution", "caption", "text",
    ),
    "id": ("id", "row_id", "question_id", "uid", "uuid"),
    "group": (
        "group", "group_id", "source", "document", "document_id", "doc_id", "docid", "table_id",
        "patient", "patient_id", "page_id",
    ),
    "kind": ("kind", "type", "question_type", "category", "task"),
    "options": ("options", "choices"),
    BOXES: (
        "objects", "boxes", "bboxes", "annotations", "detections", "answers", "answer", "label",
        "labels",
    ),
    "video": ("video", "videos", "video_path", "clip"),
    "images": ("images", *_IMAGES),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "completion": REPLY,
    "label": ("label", "thumb", "thumbs", "thumbs_up", "feedback", "liked", "rating"),
}  # fmt: skip
"""Usual names of a column by its role, the likeliest first."""
NAMES["prompt"] = ("prompt", *_QUESTION)
WORDS = {
    "image": "the image",
    "images": "the images",
    "question": "what is asked",
    "prompt": "what is asked",
    "answers": "the answer",
    "chosen": "the better answer",
    "rejected": "the worse answer",
    "completion": "the answer",
    "label": "the thumb",
}
"""What a column of a role holds."""


def plain(name: str) -> str:
    """Return a name as it is compared: in small letters, with underscores."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")
