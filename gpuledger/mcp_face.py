"""What the settings say of the MCP server's HTTP face, as the server takes it."""

from gpuledger.settings import McpSection
from mcp_server.http_face import HttpSettings
from mcp_server.oauth import OAuthSettings


def http_settings(section: McpSection) -> HttpSettings:
    """The settings of `[mcp]`, checked before anything listens.

    Raises:
        UsageError: What is asked for must not be served.
    """
    issuer, audience = section.oauth_issuer, section.oauth_audience
    settings = HttpSettings(
        host=section.host,
        auth=section.auth,
        allowed_hosts=section.allowed_hosts,
        allowed_origins=section.allowed_origins,
        body_bytes_max=section.body_bytes_max,
        body_time_limit_s=section.body_time_limit_s,
        insecure=section.insecure,
        oauth=OAuthSettings(issuer, audience, section.oauth_scopes) if issuer and audience else None,
    )
    settings.check()
    return settings
