"""Why a model answers what it answers: saliency over the radiograph, clinical attributions."""

METHODS = ("gradcam", "hirescam")
