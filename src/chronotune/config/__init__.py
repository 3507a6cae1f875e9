"""The words of chronotune: frozen, typed declarations and the loader that reads them from YAML."""
