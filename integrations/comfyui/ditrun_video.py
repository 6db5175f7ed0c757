"""A node of ComfyUI that has `ditrun serve` make a video. Copy this file into ComfyUI's custom_nodes; it needs nothing else.

The server is that of DITRUN_URL (http://127.0.0.1:8000), its key that of DITRUN_API_KEY. Neither is an input of the node: a workflow
from elsewhere could send the key to another server, and workflows are saved into what they make.
"""

import json
import os
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

import folder_paths
from comfy.model_management import processing_interrupted, throw_exception_if_processing_interrupted
from comfy.utils import ProgressBar

POLL_SECONDS = 1.0
# A server that starts again is waited for so long.
PATIENCE_SECONDS = 60.0
TIMEOUT_SECONDS = 60.0
# What the client of the library tries again, too.
PASSING = (408, 429, 500, 502, 503, 504, 507)


class Server:
    """The routes of the server that the node needs."""

    def __init__(self, url, key):
        self.base = url.rstrip("/").removesuffix("/v1") + "/v1"
        self.headers = {"authorization": f"Bearer {key}"} if key else {}

    def open(self, method, path, body=None, headers=None):
        """Returns the answer; RuntimeError with the server's sentence where it refuses, ConnectionError where it may work later."""
        data = None if body is None else json.dumps(body).encode()
        own = {**self.headers, **({} if data is None else {"content-type": "application/json"}), **(headers or {})}
        request = urllib.request.Request(self.base + path, data=data, method=method, headers=own)
        try:
            return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
        except urllib.error.HTTPError as error:
            with error:
                message = sentence_of(error)
            failure = ConnectionError if error.code in PASSING else RuntimeError
            raise failure(f"ditrun's server refuses: {message}") from None
        except OSError as error:
            raise ConnectionError(f"{self.base} cannot be reached: {getattr(error, 'reason', error)}. Check DITRUN_URL.") from None

    def json(self, method, path, body=None, headers=None):
        """As open, and returns the answer's JSON. What may work later is tried again."""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            throw_exception_if_processing_interrupted()
            try:
                with self.open(method, path, body, headers) as answer:
                    return json.load(answer)
            except ConnectionError:
                if time.monotonic() > until:
                    raise
                wait(POLL_SECONDS)


def sentence_of(error):
    """What a refused request is told."""
    try:
        return json.load(error)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return f"HTTP {error.code}"


def wait(seconds):
    """Sleeps, unless the user interrupts."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not processing_interrupted():
        time.sleep(0.05)


def video_input(path):
    """ComfyUI's own object for a video; the path where this ComfyUI has none."""
    try:
        from comfy_api.latest import InputImpl
    except ImportError:
        return path
    return InputImpl.VideoFromFile(path)


class DitrunVideo:
    CATEGORY = "video/ditrun"
    DESCRIPTION = "Has the server of DITRUN_URL make a video from a prompt."
    FUNCTION = "make"
    OUTPUT_NODE = True
    RETURN_TYPES = ("VIDEO", "STRING")
    RETURN_NAMES = ("video", "path")

    @classmethod
    def INPUT_TYPES(cls):
        own = "Empty or 0: as the server has it."
        return {
            "required": {
                "prompt": ("STRING", {"multiline": True, "default": ""}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}),
                "filename_prefix": ("STRING", {"default": "ditrun"}),
            },
            "optional": {
                "negative_prompt": ("STRING", {"multiline": True, "default": "", "tooltip": own}),
                "size": ("STRING", {"default": "", "tooltip": f"832x480, one of the server's. {own}"}),
                "num_frames": ("INT", {"default": 0, "min": 0, "max": 57_601, "tooltip": f"4n + 1. {own}"}),
                "steps": ("INT", {"default": 0, "min": 0, "max": 200, "tooltip": own}),
                "guidance": ("FLOAT", {"default": 0.0, "min": 0.0, "max": 20.0, "step": 0.1, "tooltip": own}),
                "shift": ("FLOAT", {"default": 0.0, "min": 0.0, "max": 100.0, "step": 0.1, "tooltip": own}),
                "lora": ("STRING", {"default": "", "tooltip": "A name in the server's folder of LoRAs."}),
            },
        }

    def make(self, prompt, seed, filename_prefix, **optional):
        server = Server(os.environ.get("DITRUN_URL") or "http://127.0.0.1:8000", os.environ.get("DITRUN_API_KEY"))
        names = {"steps": "num_inference_steps", "guidance": "guidance_scale", "shift": "flow_shift"}
        given = {names.get(name, name): value for name, value in optional.items() if value not in ("", 0, 0.0)}
        body = {"prompt": prompt, "seed": str(seed), **given}
        key = {"idempotency-key": uuid.uuid4().hex}
        video = server.json("POST", "/videos", body, key)
        path = f"/videos/{urllib.parse.quote(video['id'])}"
        try:
            self.wait_for(server, path, video)
            return self.save(server, path, filename_prefix)
        except BaseException:
            # Whatever ends this, nobody waits for the video any more; one that is made stays.
            try:
                server.open("POST", f"{path}/cancel").close()
            except (ConnectionError, RuntimeError):
                pass
            raise

    @staticmethod
    def wait_for(server, path, video):
        progress = ProgressBar(100)
        while video["status"] in ("queued", "in_progress"):
            progress.update_absolute(video["progress"])
            wait(POLL_SECONDS)
            video = server.json("GET", path)
        if video["status"] != "completed":
            error = video.get("error") or {}
            raise RuntimeError(f"ditrun's server could not make the video: {error.get('message', 'it gave no reason')}")
        progress.update_absolute(100)

    @staticmethod
    def save(server, path, filename_prefix):
        """Writes the file where ComfyUI saves videos; it has its name only once it is whole."""
        root = folder_paths.get_output_directory()
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(filename_prefix, root)
        file = os.path.join(folder, f"{name}_{counter:05}_.mp4")
        handle, temporary = tempfile.mkstemp(dir=folder, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as out, server.open("GET", f"{path}/content") as answer:
                while chunk := answer.read(2**16):
                    throw_exception_if_processing_interrupted()
                    out.write(chunk)
                length = answer.headers.get("content-length")
                if length is not None and out.tell() != int(length):
                    raise ConnectionError(f"The video broke off: {out.tell()} of {length} bytes came.")
            os.chmod(temporary, 0o644)
            os.replace(temporary, file)
        except BaseException:
            os.unlink(temporary)
            raise
        shown = {"filename": os.path.basename(file), "subfolder": subfolder, "type": "output"}
        return {"ui": {"images": [shown], "animated": (True,)}, "result": (video_input(file), file)}


NODE_CLASS_MAPPINGS = {"DitrunVideo": DitrunVideo}
NODE_DISPLAY_NAME_MAPPINGS = {"DitrunVideo": "ditrun: video from a prompt"}
