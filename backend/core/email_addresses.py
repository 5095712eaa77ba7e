"""E-mail addresses: which are accepted, and when two are the same."""

from __future__ import annotations

import re

import idna

_LOCAL_PART = re.compile(r"(?!\.)(?!.*\.\.)[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}(?<!\.)")
MAX_EMAIL = 254  # RFC 5321 section 4.5.3.1.3, less the angle brackets


def fold_email(email: str) -> str:
    """Return the form in which an address is unique: lower case, the domain in ASCII (IDNA 2008).

    ValueError unless it has an ASCII local part and a domain of at least two labels.
    """
    local, _, domain = email.rpartition("@")
    if not _LOCAL_PART.fullmatch(local) or len(domain) > MAX_EMAIL:
        raise ValueError("not an e-mail address")
    try:
        ascii_domain = idna.encode(domain, uts46=True, std3_rules=True).decode()
    except (idna.IDNAError, UnicodeError):
        raise ValueError("not an e-mail address") from None
    # Checked after the mapping, which turns other full stops into dots.
    if "." not in ascii_domain or ascii_domain.endswith("."):
        raise ValueError("not an e-mail address")
    folded = f"{local}@{ascii_domain}".lower()
    if max(len(email), len(folded)) > MAX_EMAIL:
        raise ValueError("too long")
    return folded
