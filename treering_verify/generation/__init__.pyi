from .callback import WatermarkCallback as WatermarkCallback
from .editing import edit as edit
from .generator import generate as generate
from .generator import generate_videos as generate_videos
from .generator import watermarked_noise as watermarked_noise
from .sidecar import sidecar as sidecar
