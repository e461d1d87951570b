describe('a', () => {
  beforeEach(() => {
    cy.log('a fresh page')
  })

  it('adds one', () => {
    expect(1 + 1).to.equal(2)
  })

  it('adds two', () => {
    cy.wait(30)
    cy.screenshot('two')
  })
})
