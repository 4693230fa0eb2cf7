"""What an MCP server answers, as text for a model. Links are told, never followed."""

import json
from typing import Final

from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
)

from app.services.tools.content import joined, left_out, shown

_BASE64_SHARE: Final = 3 / 4


def content_text(result: CallToolResult) -> str:
    """All of it, in order. Structured content is told where there are no words: a server repeats it in words."""
    words = joined(map(_told, result.content))
    if not any(isinstance(block, TextContent) for block in result.content) and result.structured_content is not None:
        words = joined([json.dumps(result.structured_content, ensure_ascii=False), words])
    return words or "The tool gave nothing."


def _told(block: ContentBlock) -> str:
    if isinstance(block, TextContent):
        return shown(block.text)
    if isinstance(block, ImageContent):
        return left_out("a picture", block.mime_type, _size_bytes(block.data))
    if isinstance(block, AudioContent):
        return left_out("a sound", block.mime_type, _size_bytes(block.data))
    if isinstance(block, ResourceLink):
        return f"[link: {block.name}, {block.uri}]"
    return _resource(block)


def _resource(block: EmbeddedResource) -> str:
    resource = block.resource
    if isinstance(resource, BlobResourceContents):
        return left_out(f"a file, {resource.uri}", resource.mime_type or "", _size_bytes(resource.blob))
    return joined([f"[{resource.uri}]", shown(resource.text, resource.mime_type or "")])


def _size_bytes(base64: str) -> int:
    return int(len(base64) * _BASE64_SHARE)
