"""From a message to the bytes of many streams; knows neither Redis nor the web."""
