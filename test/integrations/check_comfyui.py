"""Runs the node of integrations/comfyui against a stub of ComfyUI's modules and a server: `check_comfyui.py URL OUTPUT_FOLDER`.

Prints one JSON line: what the node returned for a video, for one that fails, and for one that is interrupted.
"""

import importlib.util
import json
import os
import pathlib
import sys
import types

url, output = sys.argv[1:]
os.environ["DITRUN_URL"] = url
state = {"interrupted": False, "progress": []}


class InterruptProcessingException(Exception):
    pass


def throw_if_interrupted():
    if state["interrupted"]:
        state["interrupted"] = False
        raise InterruptProcessingException()


class ProgressBar:
    def __init__(self, total):
        assert total == 100

    def update_absolute(self, value):
        state["progress"].append(value)
        if state.get("interrupt_at_progress"):
            state["interrupted"] = True


def get_save_image_path(prefix, root):
    existing = [name for name in os.listdir(root) if name.startswith(prefix)]
    return root, prefix, len(existing) + 1, "", prefix


def module(name, **members):
    made = types.ModuleType(name)
    made.__dict__.update(members)
    sys.modules[name] = made


class VideoFromFile:
    def __init__(self, path):
        self.path = path


module("comfy")
module(
    "comfy.model_management",
    processing_interrupted=lambda: state["interrupted"],
    throw_exception_if_processing_interrupted=throw_if_interrupted,
)
module("comfy.utils", ProgressBar=ProgressBar)
module("comfy_api")
module("comfy_api.latest", InputImpl=types.SimpleNamespace(VideoFromFile=VideoFromFile))
module("folder_paths", get_output_directory=lambda: output, get_save_image_path=get_save_image_path)

file = pathlib.Path(__file__).parents[2] / "integrations/comfyui/ditrun_video.py"
spec = importlib.util.spec_from_file_location("ditrun_video", file)
node_module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(node_module)
node_module.POLL_SECONDS = 0.05

# As ComfyUI does: by the mappings, and with the inputs that INPUT_TYPES declares.
Node = node_module.NODE_CLASS_MAPPINGS["DitrunVideo"]
assert set(node_module.NODE_DISPLAY_NAME_MAPPINGS) == set(node_module.NODE_CLASS_MAPPINGS)
inputs = Node.INPUT_TYPES()
defaults = {name: options["default"] for group in inputs.values() for name, (_, options) in group.items()}


def run(**given):
    node = Node()
    state["progress"] = []
    try:
        made = getattr(node, Node.FUNCTION)(**{**defaults, **given})
        video, path = made["result"]
        assert len(made["result"]) == len(Node.RETURN_TYPES) == len(Node.RETURN_NAMES)
        assert video.path == path
        return {"file": os.path.relpath(path, output), "shown": made["ui"]["images"][0], "progress": state["progress"][-1]}
    except (RuntimeError, InterruptProcessingException) as error:
        return {"error": type(error).__name__, "message": str(error)}


results = [
    run(prompt="A red car", seed=2**64 - 1, num_frames=5, steps=2),
    run(prompt="A red car", num_frames=6),
    run(prompt="fail"),
]
state["interrupt_at_progress"] = True
results.append(run(prompt="slow"))
print(json.dumps(results))
