"""The observer: windowed views rebuilt from the log. They decide nothing."""
