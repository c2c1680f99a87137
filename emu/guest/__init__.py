"""Guest code: decoding, the engine, one instruction at a time. Only here Unicorn is known."""
