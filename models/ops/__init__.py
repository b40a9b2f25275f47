"""Operations of the methods: attention to memory, local and global; warping by flow."""

from .attention_map import attention_map
from .global_attention import global_attention
from .local_attention import local_attention
from .warp import warp

__all__ = ["attention_map", "global_attention", "local_attention", "warp"]
