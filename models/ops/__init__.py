"""Operations of the methods: attention to memory, local and global."""

from .attention_map import attention_map
from .global_attention import global_attention
from .local_attention import local_attention

__all__ = ["attention_map", "global_attention", "local_attention"]
