"""Floor 2: files made of templates, by processes of their own; jinja2 is in those alone."""
