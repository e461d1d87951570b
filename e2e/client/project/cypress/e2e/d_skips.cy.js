describe('d', () => {
  it.skip('is pending', () => {
    expect('never').to.equal('run')
  })

  it('passes', () => {
    expect(true).to.equal(true)
  })

  describe('broken hook', () => {
    before(() => {
      throw new Error('the hook broke')
    })

    it('fails because of the hook', () => {})

    it('is skipped', () => {})
  })
})
